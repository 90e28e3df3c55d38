// The questions of the index that are nearest to one, while it is typed.

import { $, ask, count, make, marked, newest, number, percent, tell, words } from "./common.js";
import { introduce } from "./about.js";

const PAUSE = 150; // milliseconds without a key, after which the service is asked
const HITS = 10;
const OTHER = "another question"; // a verdict

let mayAdd = true;

export const search = newest(async (signal) => {
  const question = $("question").value.trim();
  $("try").hidden = question !== "" || !$("tries").hasChildNodes();
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
    $("add").hidden = !mayAdd || hits.some((hit) => hit.duplicate);
  } catch (error) {
    if (signal.aborted) throw error;
    showHits([], "");
    tell("search-status", error.message, "wrong");
  }
});

/** Questions to try, shown while none is typed. */
export function showTries(examples, readOnly) {
  mayAdd = !readOnly;
  $("tries").replaceChildren(
    ...examples.map((text) => {
      const [row, button] = [make("li"), make("button", text, "quiet")];
      button.type = "button";
      button.onclick = () => {
        $("question").value = text;
        $("question").focus();
        search();
      };
      row.append(button);
      return row;
    }),
  );
  $("try").hidden = !examples.length || $("question").value.trim() !== "";
}

/** What is called a duplicate stands out; the rest is one line each, by verdict, and other questions are folded. */
function showHits(hits, question, of = "") {
  $("add").hidden = true;
  $("hits").ariaBusy = "false";
  const asked = words(question);
  const same = hits.filter((hit) => hit.duplicate);
  const rest = Map.groupBy(hits.filter((hit) => !hit.duplicate), (hit) => hit.verdict);
  const list = (group, className) => {
    const rows = make("ol", "", className);
    rows.append(...group.map((hit) => shownHit(hit, question, asked)));
    return rows;
  };
  const shown = same.length ? [make("h2", "Called duplicates"), list(same, "hits same")] : [];
  for (const [verdict, group] of rest) {
    if (verdict === OTHER && shown.length) {
      const folded = make("details");
      folded.append(make("summary", group.length === 1 ? "1 other question" : `${number(group.length)} other questions`), list(group, "hits far"));
      shown.push(folded);
    } else {
      shown.push(make("h2", verdict === OTHER ? "Other questions" : verdict[0].toUpperCase() + verdict.slice(1)), list(group, "hits far"));
    }
  }
  if (hits.length) shown.push(make("p", `Probability of asking the same: that ${of}.`, "note"));
  $("hits").replaceChildren(...shown);
}

function shownHit(hit, question, asked) {
  const row = make("li");
  const text = marked("p", hit.text, asked);
  if (hit.url) {
    const link = make("a");
    link.href = hit.url;
    link.append(...text.childNodes);
    text.append(link);
  }
  const id = make("span", hit.id, "id");
  if (!hit.duplicate) text.append(id);
  const compareThem = make("button", "Compare", "link compare");
  compareThem.type = "button";
  compareThem.ariaLabel = `Compare with: ${hit.text}`;
  compareThem.onclick = () => {
    $("first").value = question;
    $("second").value = hit.text;
    location.hash = "compare";
  };
  row.append(text, make("p", percent(hit.probability), "number"));
  if (hit.duplicate) {
    const about = make("p", "", "about");
    about.append(make("span", hit.verdict, "chance"), id);
    row.append(about);
  }
  row.append(compareThem);
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

$("question").addEventListener("input", () => search($("question").value.trim() ? PAUSE : 0));
$("add").addEventListener("click", add);
