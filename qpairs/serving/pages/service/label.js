// Labels for pairs of the index, and what they say of the model.

import { $, ask, bar, count, make, number, save, share } from "./common.js";
import { introduce } from "./about.js";
import { annotator, judgeIn, request, showPair, whose } from "./judge.js";

const PURPOSE = {
  stratified:
    "Pairs drawn at random, equally many from each range of the score, with known probabilities. Use their labels for precision, " +
    "the share of pairs called duplicates that are duplicates, and recall, the share of all duplicates that are found, in the whole corpus: qpairs calibrate MODEL --corpus QUESTIONS --labels labels.csv. Skipping a pair " +
    "should not depend on whether it is a duplicate.",
  random:
    "Questions drawn at random, each with its nearest neighbour. Use their labels to see how often the first hit of a " +
    "search is right. F1 is for such pairs; skipped ones are left out of it.",
  threshold:
    "The pairs that the model is least certain of. Use their labels to fit the threshold: here an answer adds most. They " +
    "are not a random sample, so F1 on other questions differs.",
};
const MEASURES = { precision: "Precision in the corpus", F1: "F1" };

const choice = () => document.querySelector("[name=choice]:checked").value;

const VIEW = {
  slot: "label-judge",
  path: "/labelling",
  body: () => ({ choice: choice(), ...whose() }),
  key: () => `${choice()} ${annotator()}`,
  load: () => request("GET", `/labelling?${new URLSearchParams({ choice: choice(), ...whose() })}`),
  show: showState,
  fail(error) {
    if (error?.status === 404) $("labelling").hidden = true;
    $("label-status").textContent = error?.status === 404 ? NONE : (error?.message ?? "");
  },
};

const NONE = "This service does not take labels: start it with --index and --labels labels.csv, and without --read-only.";

export function label() {
  judgeIn(VIEW);
  VIEW.load();
}

function showState(state) {
  showPair(state);
  const labelled = count(state.duplicates + state.different, "pair");
  $("progress").textContent =
    `${labelled} labelled: ${number(state.duplicates)} the same, ${number(state.different)} different; ` +
    `${number(state.skipped)} skipped${choice() === "stratified" ? "" : `, ${number(state.left)} to go`}.`;
  showFigures(state);
  $("apply").disabled = !(state.duplicates + state.different);
  $("labelling").hidden = false;
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
    row.append(make("span", number(n)), bar(low, high, value));
    $("intervals").append(row);
  }
}

async function apply() {
  $("apply").disabled = true;
  $("applied").textContent = "Fitting …";
  try {
    const known = await ask("POST", "/labelling/apply", {});
    const [low, high] = known.precision_interval;
    $("applied").textContent =
      `Applied: this service now calls pairs duplicates at a similarity of at least ${known.threshold.toFixed(3)}; expected precision ` +
      `${share(known.precision)} (${share(low)} to ${share(high)}), recall ${share(known.recall)}; ${known.basis}. This lasts until the ` +
      "service stops; use qpairs calibrate to keep it.";
    introduce();
  } catch (error) {
    $("applied").textContent = `Not applied: ${error.message}`;
  }
  $("apply").disabled = false;
}

for (const radio of document.querySelectorAll("[name=choice]")) radio.addEventListener("change", VIEW.load);
$("apply").addEventListener("click", apply);
$("download").addEventListener("click", () =>
  save("/labelling/labels.csv", "labels.csv").catch((error) => ($("label-status").textContent = error.message)),
);
