// What serves, and which views it has.

import { $, ask, count, tell } from "./common.js";

/** Says in the footer what serves. */
export async function introduce() {
  try {
    const ready = await ask("GET", "/ready");
    const questions = ready.questions === null ? "no index" : count(ready.questions, "question");
    const threshold = ready.threshold === null ? "" : `, threshold for two questions ${ready.threshold.toFixed(2)}`;
    $("about").textContent = `${ready.model}, ${questions}${threshold}`;
    $("question").disabled = ready.questions === null;
    if (ready.questions === null) {
      tell("search-status", "There is nothing to search: start the service with --index. Comparing works without an index.");
    }
  } catch (error) {
    $("about").textContent = error.message;
  }
}
