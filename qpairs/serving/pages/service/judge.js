// One pair to judge, for the views that ask for labels: texts, answers, keys, and who answers.

import { $, ask, isAsking, percent } from "./common.js";

const SAID = { yes: "the same", no: "different", skip: "skipped" };
const NAME = "qpairs-annotator";

let pair = null;
let busy = false;
let view = null; // {slot, path, body(), show(state), load(), fail(error)}

export const annotator = () => $("annotator").value.trim() || null;
/** Whose answers are meant, for a request; nobody named: those of the service's own annotator. */
export const whose = () => (annotator() ? { annotator: annotator() } : {});

/** Puts the pair into a view. */
export function judgeIn(chosen) {
  view = chosen;
  $(view.slot).append($("judge"));
}

export const judgesIn = (slot) => view?.slot === slot;

/** Sends a request of the view, one at a time, and shows the state that it returns; 409: answered in another window. */
export async function request(method, path, body) {
  if (busy) return;
  busy = true;
  const [at, before] = [view, view.key()];
  let stale = false;
  $("judge").ariaBusy = "true";
  try {
    at.show(await ask(method, path, body));
    at.fail(null);
  } catch (error) {
    stale = error.status === 409;
    at.fail(error);
  }
  busy = false;
  $("judge").ariaBusy = "false";
  if (stale || at !== view || before !== view.key()) view.load();
}

function answer(said) {
  if (pair) request("POST", `${view.path}/answer`, { ...pair, answer: said, ...view.body() });
}

const undo = () => request("POST", `${view.path}/undo`, view.body());

/** Shows the next pair and the last answer of a state of the labelling. */
export function showPair(state) {
  pair = state.pair;
  $("pair-first").textContent = pair?.question1 ?? "";
  $("pair-second").textContent = pair?.question2 ?? "";
  document.querySelector(".pair").hidden = !pair;
  $("pair-none").hidden = Boolean(pair);
  for (const button of document.querySelectorAll("[data-answer]")) button.disabled = !pair;
  $("undo").disabled = !state.last;
  $("last").textContent = state.last ? judged(state.last) : "";
  if (!annotator()) $("annotator").placeholder = state.annotator || "no name";
}

function judged({ answer, duplicate, probability }) {
  return `Your last answer: ${SAID[answer]}. The model calls them ${duplicate ? "the same" : "different"}; the probability that they are the same is ${percent(probability)}.`;
}

$("annotator").value = localStorage.getItem(NAME) ?? "";
$("annotator").addEventListener("change", () => {
  if (annotator()) localStorage.setItem(NAME, annotator());
  else localStorage.removeItem(NAME);
  view?.load();
});
for (const button of document.querySelectorAll("[data-answer]")) {
  button.addEventListener("click", () => answer(button.dataset.answer));
}
$("undo").addEventListener("click", undo);
document.addEventListener("keydown", (event) => {
  if (!view || !$("judge").checkVisibility() || event.repeat || event.ctrlKey || event.metaKey || event.altKey || isAsking()) return;
  if (event.target.matches("input:not([type=radio]), textarea, select")) return;
  const said = { y: "yes", n: "no", s: "skip" }[event.key.toLowerCase()];
  if (said) answer(said);
  else if (event.key.toLowerCase() === "u") undo();
});
