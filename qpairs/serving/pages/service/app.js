// The page of `qpairs serve`. What people wrote enters the document as text alone, never as markup.

const WORD = /[\p{L}\p{N}]+(?:['’][\p{L}\p{N}]+)*/gu;
const PAUSE = 150; // milliseconds without a key, after which the service is asked
const HITS = 10;

const $ = (id) => document.getElementById(id);

function make(tag, text = "", className = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  element.className = className;
  return element;
}

// Asking the service

class Refusal extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function call(method, path, body, signal) {
  const token = sessionStorage.getItem("token");
  const headers = { ...(body && { "Content-Type": "application/json" }), ...(token && { Authorization: `Bearer ${token}` }) };
  let response;
  try {
    response = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Refusal(0, "The service does not answer.");
  }
  if (response.status === 401) {
    if (token === sessionStorage.getItem("token")) await askForToken(token !== null);
    return call(method, path, body, signal);
  }
  if (!response.ok) {
    const detail = (await response.json().catch(() => ({}))).detail;
    throw new Refusal(response.status, typeof detail === "string" ? detail : `The service refused (${response.status}).`);
  }
  return response;
}

const ask = async (...request) => (await call(...request)).json();

let asking = null;

function askForToken(refused) {
  asking ??= new Promise((resolve, reject) => {
    $("token-note").textContent = refused ? "That token was refused." : "It is kept until this tab is closed.";
    $("token-note").classList.toggle("wrong", refused);
    $("token").value = "";
    $("token-dialog").showModal();
    $("token-form").onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem("token", $("token").value);
      resolve();
      $("token-dialog").close();
    };
    $("token-dialog").onclose = () => {
      asking = null;
      reject(new Refusal(401, "The service asks for a token; load the page anew to give it."));
    };
  });
  return asking;
}

/** Runs a task when nothing newer comes within `wait` milliseconds; what comes late of an older run is dropped. */
function newest(task) {
  let current = new AbortController();
  return (wait = 0) => {
    current.abort();
    const { signal } = (current = new AbortController());
    setTimeout(async () => {
      try {
        if (!signal.aborted) await task(signal);
      } catch (error) {
        if (!signal.aborted) throw error;
      }
    }, wait);
  };
}

// Words

const number = (value) => value.toLocaleString("en");
const count = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;
const percent = (p) => (p < 0.01 ? "< 1 %" : p > 0.99 ? "> 99 %" : `${Math.round(100 * p)} %`);
const plain = (word) => word.toLowerCase().replaceAll("’", "'");
const words = (text) => new Map((text.match(WORD) ?? []).map((word) => [plain(word), word]));

/** An element with a text in which some words are marked, neighbours by one mark. */
function marked(tag, text, some) {
  const element = make(tag);
  let end = 0;
  for (const { 0: word, index } of text.matchAll(WORD)) {
    if (!some.has(plain(word))) continue;
    const gap = text.slice(end, index);
    if (element.lastChild?.nodeName === "MARK" && !gap.trim()) element.lastChild.textContent += gap + word;
    else element.append(gap, make("mark", word));
    end = index + word.length;
  }
  element.append(text.slice(end));
  return element;
}

function tell(id, text, kind = "") {
  $(id).textContent = text;
  $(id).parentElement.classList.toggle("sure", kind === "sure");
  $(id).parentElement.classList.toggle("wrong", kind === "wrong");
}

// Search

const search = newest(async (signal) => {
  const question = $("question").value.trim();
  if (!question) {
    showHits([], "");
    tell("search-status", "The nearest questions appear while you type.");
    return;
  }
  if (!$("hits").hasChildNodes()) tell("search-status", "Searching …");
  $("hits").ariaBusy = "true";
  try {
    const { heading, hits, of } = await ask("POST", "/search", { question, k: HITS }, signal);
    showHits(hits, question, of);
    tell("search-status", heading, "sure");
    $("add").hidden = hits.some((hit) => hit.duplicate);
  } catch (error) {
    if (signal.aborted) throw error;
    showHits([], "");
    tell("search-status", error.message, "wrong");
  }
});

function showHits(hits, question, of = "") {
  $("add").hidden = true;
  $("hits").ariaBusy = "false";
  const asked = words(question);
  const groups = [
    ["Called duplicates", "hits", hits.filter((hit) => hit.duplicate)],
    ["Near it", "hits far", hits.filter((hit) => !hit.duplicate)],
  ];
  $("hits").replaceChildren(
    ...groups.flatMap(([title, className, group]) => {
      if (!group.length) return [];
      const list = make("ol", "", className);
      list.append(...group.map((hit) => shownHit(hit, question, asked)));
      return [make("h2", title), list];
    }),
    ...(hits.length ? [make("p", `Probability of asking the same: that ${of}.`, "note")] : []),
  );
}

function shownHit(hit, question, asked) {
  const row = make("li");
  const compareThem = make("button", "Compare", "link compare");
  compareThem.type = "button";
  compareThem.ariaLabel = `Compare with: ${hit.text}`;
  compareThem.onclick = () => {
    $("first").value = question;
    $("second").value = hit.text;
    location.hash = "compare";
  };
  const figure = make("p", percent(hit.probability), "number");
  row.append(marked("p", hit.text, asked), figure, make("p", hit.verdict, "chance"), compareThem);
  return row;
}

async function add() {
  const text = $("question").value.trim();
  $("add").disabled = true;
  try {
    const added = await ask("POST", "/questions", { questions: [{ text }] });
    tell("search-status", `Added. There are ${count(added.count, "question")} now.`, "sure");
    $("add").hidden = true;
    $("question").focus();
    introduce();
  } catch (error) {
    tell("search-status", `Not added: ${error.message}`, "wrong");
  }
  $("add").disabled = false;
}

// Compare

const compare = newest(async (signal) => {
  const pair = [$("first").value.trim(), $("second").value.trim()];
  if (pair.includes("")) {
    $("comparison").hidden = true;
    tell("compare-status", "The verdict appears when there are two questions.");
    return;
  }
  try {
    const { threshold, threshold_of, results } = await ask("POST", "/score", { pairs: [pair] }, signal);
    showComparison(pair, threshold, threshold_of, results[0]);
  } catch (error) {
    if (signal.aborted) throw error;
    $("comparison").hidden = true;
    tell("compare-status", error.message, "wrong");
  }
});

function showComparison([first, second], threshold, thresholdOf, { similarity, probability, duplicate, verdict }) {
  tell("compare-status", `${duplicate ? "Yes" : "No"}: ${verdict}. The probability that both ask the same is ${percent(probability)}.`, "sure");
  const [name, decisive] = thresholdOf === "probability" ? ["Probability", probability] : ["Similarity", similarity];
  const onScale = (value) => Math.min(1, Math.max(0, value));
  $("scale").style.setProperty("--at", onScale(decisive));
  $("scale").style.setProperty("--threshold", onScale(threshold));
  const said = `${name} ${decisive.toFixed(2)}; from the threshold of ${threshold.toFixed(2)} on, the verdict is yes.`;
  $("scale").ariaLabel = said;
  $("similarity").textContent = said;
  const [one, other] = [words(first), words(second)];
  const kinds = {
    "In both": [...one].filter(([word]) => other.has(word)),
    "In the first alone": [...one].filter(([word]) => !other.has(word)),
    "In the second alone": [...other].filter(([word]) => !one.has(word)),
  };
  const listed = (found) => found.map(([, word]) => word).join(", ") || "none";
  $("words").replaceChildren(
    ...Object.entries(kinds).flatMap(([kind, found]) => [make("dt", kind), make("dd", listed(found))]),
  );
  $("comparison").hidden = false;
}

// Label

const PURPOSE = {
  stratified:
    "Pairs drawn at random, as many from each range of the score, with known probabilities. Use their labels for precision " +
    "and recall in the whole corpus: qpairs calibrate MODEL --corpus QUESTIONS --labels labels.csv. Skipping a pair " +
    "should have nothing to do with whether it is a duplicate.",
  random:
    "Questions drawn at random, each with its nearest neighbour. Use their labels to see how often the first hit of a " +
    "search is right. F1 is for such pairs; skipped ones are left out of it.",
  threshold:
    "The pairs that the model is least sure of. Use their labels to fit the threshold: an answer teaches most here. They " +
    "are no random sample, so F1 on other questions differs.",
};
const MEASURES = { precision: "Precision in the corpus", F1: "F1" };
const SAID = { yes: "the same", no: "different", skip: "skipped" };

let pair = null;

const choice = () => document.querySelector("[name=choice]:checked").value;

/** Sends a request for labelling, one at a time, and shows the state that it returns. */
async function requestState(method, path, body) {
  if ($("labelling").ariaBusy === "true") return;
  $("labelling").ariaBusy = "true";
  const chosen = choice();
  let stale = false;
  try {
    showState(await ask(method, path, body));
    $("label-status").textContent = "";
  } catch (error) {
    stale = error.status === 409; // the pair was answered in another window
    $("labelling").hidden ||= error.status === 404;
    $("label-status").textContent =
      error.status === 404 ? "There is nothing to label: start the service with --index and --labels labels.csv." : error.message;
  }
  $("labelling").ariaBusy = "false";
  if (stale || chosen !== choice()) label();
}

const label = () => requestState("GET", `/labelling?choice=${choice()}`);
const undo = () => requestState("POST", "/labelling/undo", { choice: choice() });

function answer(said) {
  if (pair) requestState("POST", "/labelling/answer", { ...pair, answer: said, choice: choice() });
}

function showState(state) {
  pair = state.pair;
  $("pair-first").textContent = pair?.question1 ?? "";
  $("pair-second").textContent = pair?.question2 ?? "";
  document.querySelector(".pair").hidden = !pair;
  $("pair-none").hidden = Boolean(pair);
  for (const button of document.querySelectorAll("[data-answer]")) button.disabled = !pair;
  $("undo").disabled = !state.last;
  $("last").textContent = state.last ? judged(state.last) : "";
  const labelled = count(state.duplicates + state.different, "pair");
  $("progress").textContent =
    `${labelled} labelled: ${number(state.duplicates)} the same, ${number(state.different)} different; ` +
    `${number(state.skipped)} skipped${choice() === "stratified" ? "" : `, ${number(state.left)} to go`}.`;
  showFigures(state);
  $("labelling").hidden = false;
}

function judged({ answer, duplicate, probability }) {
  return `Your last answer: ${SAID[answer]}. The model says: ${duplicate ? "the same" : "different"} (${percent(probability)}).`;
}

function showFigures({ measure, figures, missing, more }) {
  const now = figures.at(-1);
  const name = MEASURES[measure];
  const said = ({ n, value, low, high }) =>
    `${name} ${value.toFixed(2)}, 95 % interval ${low.toFixed(2)} to ${high.toFixed(2)}, on ${n} pairs`;
  $("figure").textContent = now ? `${said(now)}. About ${number(more)} more would halve the interval.` : `${missing}.`;
  $("purpose").textContent = PURPOSE[choice()];
  $("measure").textContent = name;
  $("intervals").hidden = !now;
  $("intervals").ariaLabel = `How the interval narrowed. ${figures.map(said).join("; ")}.`;
  for (const row of $("intervals").querySelectorAll("div")) row.remove();
  for (const { n, value, low, high } of figures) {
    const row = make("div");
    const bar = make("i");
    for (const [key, share] of Object.entries({ low, high, value })) bar.style.setProperty(`--${key}`, share);
    row.append(make("span", number(n)), bar);
    $("intervals").append(row);
  }
}

async function download() {
  try {
    const file = await (await call("GET", "/labelling/labels.csv")).blob();
    const link = make("a");
    link.href = URL.createObjectURL(file);
    link.download = "labels.csv";
    link.click();
    URL.revokeObjectURL(link.href);
  } catch (error) {
    $("label-status").textContent = error.message;
  }
}

// Views

const VIEWS = {
  search: { focus: "question", open: () => {} },
  compare: { focus: "first", open: () => compare() },
  label: { focus: "label-title", open: label },
};

const shown = () => (location.hash.slice(1) in VIEWS ? location.hash.slice(1) : "search");

function show() {
  const name = shown();
  for (const view of Object.keys(VIEWS)) $(`view-${view}`).hidden = view !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.ariaCurrent = "page";
    else link.removeAttribute("aria-current");
  }
  document.title = `qpairs: ${$(`${name}-title`).textContent.trim().toLowerCase()}`;
  scrollTo(0, 0);
  $(VIEWS[name].focus).focus({ preventScroll: true });
  VIEWS[name].open();
}

/** Says in the footer what serves. */
async function introduce() {
  try {
    const ready = await ask("GET", "/ready");
    const questions = ready.questions === null ? "no index" : count(ready.questions, "question");
    $("about").textContent = `${ready.model}, ${questions}, threshold ${ready.threshold.toFixed(2)}`;
    $("question").disabled = ready.questions === null;
    if (ready.questions === null) {
      tell("search-status", "There is nothing to search: start the service with --index. Comparing works without.");
    }
  } catch (error) {
    $("about").textContent = error.message;
  }
}

$("question").addEventListener("input", () => search($("question").value.trim() ? PAUSE : 0));
$("add").addEventListener("click", add);
for (const id of ["first", "second"]) $(id).addEventListener("input", () => compare(PAUSE));
for (const button of document.querySelectorAll("[data-answer]")) {
  button.addEventListener("click", () => answer(button.dataset.answer));
}
for (const radio of document.querySelectorAll("[name=choice]")) radio.addEventListener("change", label);
$("undo").addEventListener("click", undo);
$("download").addEventListener("click", download);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("main").focus();
});
document.addEventListener("keydown", (event) => {
  if (shown() !== "label" || event.repeat || event.ctrlKey || event.metaKey || event.altKey || asking) return;
  const said = { y: "yes", n: "no", s: "skip" }[event.key.toLowerCase()];
  if (said) answer(said);
  else if (event.key.toLowerCase() === "u") undo();
});
window.addEventListener("hashchange", show);
search();
show();
introduce();
