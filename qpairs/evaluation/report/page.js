"use strict";
(() => {
  const ROWS = 50;
  const { slices, mistakes } = JSON.parse(document.getElementById("data").textContent);
  const find = (selector) => document.querySelector(selector);

  const element = (name, text = "", style = "") => {
    const made = document.createElement(name);
    made.textContent = text;
    made.className = style;
    return made;
  };

  // ---------------------------------------------------------------- mistakes

  const filters = find(".filters");
  const body = find(".mistakes tbody");
  const keys = {
    text: (mistake) => mistake.text,
    label: (mistake) => mistake.label,
    similarity: (mistake) => mistake.similarity,
    distance: (mistake) => Math.abs(mistake.distance),
    probability: (mistake) => mistake.probability,
  };
  const names = ["similarity", "distance", "probability"].map((key) => find(`[data-sort=${key}]`).textContent.toLowerCase());
  const order = { by: "distance", sign: -1 };
  let page = 0;
  let shown = [];

  for (const mistake of mistakes) {
    mistake.text = mistake.questions.map((pieces) => pieces.join("")).join("\n").toLowerCase();
  }

  const question = (pieces) => {
    const line = element("div");
    line.append(...pieces.map((piece, number) => (number % 2 ? element("mark", piece) : piece)));
    return line;
  };

  const row = (mistake) => {
    const made = element("tr");
    const words = element("td");
    words.append(...mistake.questions.map(question));
    const why = mistake.slices.filter((number) => slices[number].worse).map((number) => slices[number].name);
    if (mistake.contradicted) why.push("other labels say that these are duplicates");
    if (why.length) words.append(element("div", why.join(" · "), "why"));
    const verdict = element("td");
    verdict.append(mistake.label ? element("span", "missed", "tag missed") : element("span", "false positive", "tag"));
    const sign = mistake.distance < 0 ? "−" : "+";
    const numbers = [mistake.similarity.toFixed(3), sign + Math.abs(mistake.distance).toFixed(3), mistake.probability.toFixed(2)];
    made.append(words, verdict, ...numbers.map((text) => element("td", text, "number")));
    [...made.children].slice(2).forEach((cell, place) => (cell.dataset.of = names[place])); // said beside it on a phone
    return made;
  };

  const show = () => {
    const first = page * ROWS;
    const last = Math.min(first + ROWS, shown.length);
    body.replaceChildren(...shown.slice(first, last).map(row));
    const all = shown.length.toLocaleString("en");
    const range = shown.length > ROWS ? `${(first + 1).toLocaleString("en")} to ${last.toLocaleString("en")} of ` : "";
    find(".count").textContent = shown.length ? `${range}${all} mistake${all === "1" ? "" : "s"}` : "No mistakes match.";
    find(".pages").hidden = shown.length <= ROWS;
    find(".back").disabled = page === 0;
    find(".next").disabled = last === shown.length;
  };

  const filter = () => {
    const { text, kind, slice } = filters.elements;
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const key = keys[order.by];
    shown = mistakes.filter(
      (mistake) =>
        (!kind.value || mistake.label === Number(kind.value)) &&
        (!slice.value || mistake.slices.includes(Number(slice.value))) &&
        words.every((word) => mistake.text.includes(word)),
    );
    shown.sort((a, b) => order.sign * (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0));
    page = 0;
    show();
  };

  const turn = (by) => {
    page += by;
    show();
    find("#mistakes").scrollIntoView();
  };

  slices.forEach((slice, number) => {
    if (slice.errors) filters.elements.slice.append(new Option(`${slice.name} (${slice.errors})`, number));
  });
  filters.addEventListener("input", filter);
  filters.addEventListener("reset", () => setTimeout(filter));
  filters.addEventListener("submit", (event) => event.preventDefault());
  find(".back").addEventListener("click", () => turn(-1));
  find(".next").addEventListener("click", () => turn(1));
  for (const button of document.querySelectorAll("[data-sort]")) {
    button.addEventListener("click", () => {
      order.sign = order.by === button.dataset.sort ? -order.sign : button.dataset.sort === "text" ? 1 : -1;
      order.by = button.dataset.sort;
      find("th[aria-sort]").removeAttribute("aria-sort");
      button.closest("th").setAttribute("aria-sort", order.sign < 0 ? "descending" : "ascending");
      filter();
    });
  }
  for (const button of document.querySelectorAll("[data-slice]")) {
    button.addEventListener("click", () => {
      filters.reset();
      filters.elements.slice.value = button.dataset.slice;
      filter();
      find("#mistakes").scrollIntoView();
      filters.elements.slice.focus({ preventScroll: true });
    });
  }
  if (mistakes.length) {
    filters.hidden = find("#mistakes .scroll").hidden = false;
    filter();
  }

  // ---------------------------------------------------------------- what charts tell

  const tooltip = find(".tooltip");
  let here = null;

  const leave = () => {
    here?.classList.remove("here");
    for (const kin of document.querySelectorAll(".kin")) kin.classList.remove("kin");
    find(".map.pointed")?.classList.remove("pointed");
    tooltip.hidden = true;
    here = null;
  };

  const tell = (mark) => {
    if (mark === here) return;
    leave();
    if (!mark) return;
    here = mark;
    mark.classList.add("here");
    const { group, tip } = mark.dataset;
    if (group) {
      const map = mark.closest(".map");
      map.classList.add("pointed");
      for (const kin of map.querySelectorAll(`[data-group="${group}"]`)) kin.classList.add("kin");
    }
    tooltip.textContent = tip;
    tooltip.hidden = false;
    const box = mark.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = tooltip;
    const left = Math.min(Math.max(box.left + box.width / 2 - width / 2, 8), document.documentElement.clientWidth - width - 8);
    const above = box.top - height - 8;
    tooltip.style.left = `${left}px`;
    tooltip.style.top = `${above > 8 ? above : box.top + Math.min(box.height, 40) + 8}px`;
  };

  const nearest = (marks, x, y) => {
    let best = null;
    let least = 24 ** 2;
    for (const mark of marks) {
      const box = mark.getBoundingClientRect();
      const far = (box.left + box.width / 2 - x) ** 2 + (box.top + box.height / 2 - y) ** 2;
      if (far < least) [best, least] = [mark, far];
    }
    return best;
  };

  for (const chart of document.querySelectorAll(".chart")) {
    const marks = [...chart.querySelectorAll("[data-tip]")];
    let place = -1;
    const isMap = chart.parentElement.classList.contains("map");
    const point = (event) =>
      tell(isMap ? nearest(marks, event.clientX, event.clientY) : event.target.closest("[data-tip]"));
    chart.addEventListener("pointermove", point);
    chart.addEventListener("pointerdown", point);
    chart.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && leave());
    chart.addEventListener("blur", leave);
    chart.addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (event.key === "Escape") leave();
      if (!by || !marks.length) return;
      event.preventDefault();
      if (marks.includes(here)) place = marks.indexOf(here);
      place = (place + by + marks.length) % marks.length;
      tell(marks[place]);
    });
  }
  addEventListener("scroll", leave, { passive: true });
})();
