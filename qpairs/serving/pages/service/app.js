// The page of `qpairs serve`: which view is shown.

import { $, ask } from "./common.js";
import { introduce } from "./about.js";
import { clusters } from "./clusters.js";
import { compare } from "./compare.js";
import { label } from "./label.js";
import { search, showTries } from "./search.js";
import { start } from "./start.js";

const VIEWS = {
  start: { focus: "start-title", open: start },
  search: { focus: "question", open: () => {} },
  compare: { focus: "first", open: () => compare() },
  label: { focus: "label-title", open: label },
  clusters: { focus: "clusters-title", open: () => clusters() },
};

let first = "search";

const shown = () => (location.hash.slice(1) in VIEWS ? location.hash.slice(1) : first);

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

/** Links the views that this service has; a page without a name opens the first of them. */
async function offer() {
  try {
    const { views, examples, read_only } = await ask("GET", "/about");
    for (const name of ["start", "label", "clusters"]) document.querySelector(`nav a[href="#${name}"]`).hidden = !views.includes(name);
    showTries(examples, read_only);
    document.body.classList.toggle("read-only", read_only);
    if (views.includes("start") && shown() === "search" && !location.hash) {
      first = "start";
      show();
    }
  } catch {
    // the footer says why
  }
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("main").focus();
});
window.addEventListener("hashchange", show);
search();
show();
introduce();
offer();
