// Two questions, compared.

import { $, ask, make, newest, percent, tell, words } from "./common.js";

export const compare = newest(async (signal) => {
  const pair = [$("first").value.trim(), $("second").value.trim()];
  if (pair.includes("")) {
    $("comparison").hidden = true;
    tell("compare-status", "Enter two questions to see the verdict.");
    return;
  }
  try {
    const { threshold, threshold_of, of, results } = await ask("POST", "/score", { pairs: [pair] }, signal);
    showComparison(pair, threshold, threshold_of, of, results[0]);
  } catch (error) {
    if (signal.aborted) throw error;
    $("comparison").hidden = true;
    tell("compare-status", error.message, "wrong");
  }
});

function showComparison([first, second], threshold, thresholdOf, of, { similarity, probability, duplicate, verdict }) {
  tell("compare-status", `${duplicate ? "Yes" : "No"}: ${verdict}. The probability that both ask the same is ${percent(probability)} (${of}).`, "sure");
  const [name, decisive] = thresholdOf === "probability" ? ["Probability", probability] : ["Similarity", similarity];
  const onScale = (value) => Math.min(1, Math.max(0, value));
  $("scale").style.setProperty("--at", onScale(decisive));
  $("scale").style.setProperty("--threshold", onScale(threshold));
  const said = `${name} ${decisive.toFixed(2)}; the verdict is yes at or above the threshold of ${threshold.toFixed(2)}.`;
  $("scale").ariaLabel = said;
  $("similarity").textContent = said;
  const [one, other] = [words(first), words(second)];
  const kinds = {
    "In both": [...one].filter(([word]) => other.has(word)),
    "Only in the first": [...one].filter(([word]) => !other.has(word)),
    "Only in the second": [...other].filter(([word]) => !one.has(word)),
  };
  const listed = (found) => found.map(([, word]) => word).join(", ") || "none";
  $("words").replaceChildren(
    ...Object.entries(kinds).flatMap(([kind, found]) => [make("dt", kind), make("dd", listed(found))]),
  );
  $("comparison").hidden = false;
}

for (const id of ["first", "second"]) $(id).addEventListener("input", () => compare(150));
