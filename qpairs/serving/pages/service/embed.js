// Has this been asked? Shows, under a text field of any page, the questions of a qpairs service that are nearest to what
// is typed there. <script src="https://SERVICE/embed.js" data-field="#title" defer></script>
(() => {
  "use strict";
  const script = document.currentScript;
  const service = new URL(script.src).origin;
  const { field, hits = "5", near = "false", title = "Asked before?" } = script.dataset;
  if (!field) {
    console.error("embed.js: name the field with data-field"); // no default: what else is typed is nobody's business
    return;
  }
  const PAUSE = 250; // milliseconds without a key, after which the service is asked
  const LEAST = 3; // characters

  const STYLE = `
    :host { display: block; position: relative; font: inherit; }
    .box { margin: .25rem 0; padding: .5rem .75rem; border: 1px solid #85897f; border-radius: 8px; background: #fff; color: #1f2421; font-size: .9375em; line-height: 1.45; }
    h2 { margin: 0 0 .25rem; font-size: 1em; }
    ul { margin: 0; padding: 0; list-style: none; }
    li { display: flex; justify-content: space-between; gap: 1rem; padding: .25rem 0; overflow-wrap: anywhere; }
    a { color: #1f6a5a; }
    a:focus-visible { outline: 3px solid #1f6a5a; outline-offset: 2px; }
    span { color: #59615b; white-space: nowrap; }
    @media (prefers-color-scheme: dark) {
      .box { background: #1d211f; color: #e6e9e5; border-color: #77807a; }
      a { color: #79c7b2; } a:focus-visible { outline-color: #79c7b2; } span { color: #a3ada7; }
    }`;

  const make = (tag, text = "") => {
    const made = document.createElement(tag);
    made.textContent = text; // what people wrote is text, never markup
    return made;
  };

  function attach(input) {
    const host = make("qpairs-box");
    const root = host.attachShadow({ mode: "open" });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
    root.adoptedStyleSheets = [sheet];
    const box = make("div");
    box.className = "box";
    box.role = "status";
    box.hidden = true;
    root.append(box);
    input.insertAdjacentElement("afterend", host);
    let asking = new AbortController();

    input.addEventListener("input", () => {
      asking.abort();
      const { signal } = (asking = new AbortController());
      setTimeout(() => !signal.aborted && search(input.value.trim(), signal), PAUSE);
    });

    async function search(question, signal) {
      if (question.length < LEAST) {
        box.hidden = true;
        return;
      }
      try {
        const response = await fetch(`${service}/search`, {
          method: "POST",
          headers: { "Content-Type": "application/json" },
          body: JSON.stringify({ question, k: Number(hits) }),
          signal,
        });
        if (response.ok) show((await response.json()).hits);
        else box.hidden = true;
      } catch {
        if (!signal.aborted) box.hidden = true; // the page works without
      }
    }

    function show(found) {
      const shown = found.filter((hit) => hit.duplicate || near === "true");
      const list = make("ul");
      for (const hit of shown) {
        const row = make("li");
        const text = make(hit.url ? "a" : "div", hit.text);
        if (hit.url) text.href = hit.url;
        row.append(text, make("span", hit.verdict));
        list.append(row);
      }
      box.replaceChildren(make("h2", title), list);
      box.hidden = !shown.length;
    }
  }

  const begin = () => document.querySelectorAll(field).forEach(attach);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();
