// From a file of questions to its duplicates, by a few answers: what `qpairs start` does.

import { $, apart, ask, bar, count, make, number, percent, share, showFiles } from "./common.js";
import { introduce } from "./about.js";
import { annotator, judgeIn, judgesIn, request, showPair, whose } from "./judge.js";
import { showUpload, takesFiles } from "./upload.js";

const AGAIN = 700; // milliseconds between two looks at work in the background
const GOAL = 60; // answers that the terminal asks for

let watching = 0;

const VIEW = {
  slot: "start-judge",
  path: "/start",
  body: whose,
  key: () => `${annotator()}`,
  load: () => request("GET", `/start?${new URLSearchParams(whose())}`),
  show: showState,
  fail(error) {
    if (error?.status === 404) $("session").hidden = true;
    const none = takesFiles() ? "" : "There is no file: start the service with --questions FILE.";
    $("start-status").textContent = error?.status === 404 ? none : (error?.message ?? "");
  },
};

export async function start() {
  judgeIn(VIEW);
  await showUpload();
  if (judgesIn(VIEW.slot)) VIEW.load();
}

function showState(session) {
  const { state, known, step } = session;
  $("start-title").textContent = `Find the duplicates in ${session.file.split(/[\\/]/).at(-1)}`;
  const left = session.skipped ? `, ${count(session.skipped, "row")} left out` : "";
  $("start-about").textContent =
    `${count(session.questions, "question")}${left}, scored by ${session.model}. Answer some pairs, and the threshold is fitted to ` +
    `your answers. Everything is kept in ${session.folder}; you can stop at any time.`;
  showPair(state);
  showKnown(known, session.mostly_wrong);
  const answers = state.duplicates + state.different;
  $("start-progress").textContent =
    `${count(answers, "answer")} so far (${number(state.duplicates)} the same, ${number(state.different)} different, ` +
    `${number(state.skipped)} skipped)${answers < GOAL ? `, of about ${GOAL}` : ""}. ` +
    (session.fitted ? "The figures above are new." : `The next fit comes after ${number(step - (answers % step))} more.`);
  showExamples(session.examples);
  showWork(session);
  $("training").hidden = !session.training_may_pay;
  $("commands").replaceChildren(
    ...session.commands.map((command) => {
      const row = make("li");
      row.append(make("code", command));
      return row;
    }),
  );
  $("session").hidden = false;
  if (session.fitted) introduce();
}

let told = ""; // what is known, as it is shown: it is read out when it changes

function showKnown(known, mostlyWrong) {
  if (told === JSON.stringify(known)) return;
  told = JSON.stringify(known);
  $("known-warning").hidden = !mostlyWrong;
  if (known.pairs < 1) {
    $("known").replaceChildren(...figure("Pairs called duplicates", "0", `similarity ${known.threshold.toFixed(3)} and above`));
    $("known-note").textContent = `No pair is more likely a duplicate than not, ${known.basis}: answer some for a better estimate.`;
    return;
  }
  $("known").replaceChildren(
    ...figure("Pairs called duplicates", number(Math.round(known.pairs)), `similarity ${known.threshold.toFixed(3)} and above`),
    ...figure("Expected precision", share(known.precision), interval(known.precision_interval), known.precision_interval, known.precision),
    ...figure("Expected recall", share(known.recall), interval(known.recall_interval), known.recall_interval, known.recall),
  );
  const basis = known.basis[0].toUpperCase() + known.basis.slice(1);
  $("known-note").textContent =
    "Precision is the share of these pairs that are duplicates, recall the share of all duplicates in the file that are among them. " +
    `${basis}; intervals are 95 %. ${known.more} more answers would narrow the interval of the precision from a width of ` +
    `${share(known.width)} to ${share(known.width_with_more)}.`;
}

const interval = ([low, high]) => `${share(low)} to ${share(high)}`;

function figure(name, value, about, ends, at) {
  const shown = make("dd");
  shown.append(make("strong", value), make("span", about));
  if (ends) shown.append(bar(...ends, at));
  const group = make("div");
  group.append(make("dt", name), shown);
  return [group];
}

function showExamples(examples) {
  $("examples-part").hidden = !examples.length;
  $("examples-apart").hidden = !examples.some(({ differ }) => differ);
  $("examples").replaceChildren(...examples.map(shownExample));
}

function shownExample({ question1, question2, probability, differ }) {
  const row = make("li");
  const texts = make("div");
  texts.append(make("p", question1), make("p", question2), ...apart(differ));
  row.append(texts, make("p", percent(probability), "number"));
  return row;
}

function showWork({ work, error, finished }) {
  $("finish").disabled = Boolean(work);
  $("work-bar").hidden = !work;
  if (work?.total) [$("work-bar").max, $("work-bar").value] = [work.total, work.done];
  else $("work-bar").removeAttribute("value");
  $("work").textContent = work ? `At work: ${work.stage} …` : error;
  $("work").classList.toggle("wrong", Boolean(error) && !work);
  $("finished").hidden = !finished;
  if (finished) {
    const basis = finished.basis ? `; ${finished.basis}` : "";
    $("finished-said").textContent =
      `${number(finished.kept)} of ${number(finished.rows)} rows are left without duplicates: ${count(finished.pairs, "pair")} in ` +
      `${count(finished.clusters, "cluster")}, at a similarity of at least ${finished.threshold.toFixed(3)}${basis}.`;
    $("finished-warning").hidden = !finished.mostly_wrong;
    showFiles($("finished-files"), "/start/files", finished.files, "work");
    $("finished-where").textContent = `The model is in ${finished.model}, the files in ${finished.duplicates}. Correct the clusters in the view Clusters.`;
  }
  clearTimeout(watching);
  if (work) watching = setTimeout(watch, AGAIN);
}

async function watch() {
  if (!judgesIn(VIEW.slot)) return;
  try {
    const session = await ask("GET", `/start?${new URLSearchParams(whose())}`);
    showExamples(session.examples);
    showWork(session);
  } catch (error) {
    $("work").textContent = error.message;
    watching = setTimeout(watch, AGAIN);
  }
}

$("finish").addEventListener("click", () => request("POST", "/start/finish", whose()));
