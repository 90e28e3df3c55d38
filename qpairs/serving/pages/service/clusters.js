// What dedupe found, as people mend it: another representative, splits, merges.

import { $, apart, ask, count, make, newest, number, share, showFiles } from "./common.js";

const PAGE = 20;
const PAUSE = 200;

let offset = 0;
let merging = null; // the cluster that another is to be merged into
let told = ""; // beside the clusters

const status = (text) => ($("clusters-status").textContent = text);

export const clusters = newest(async (signal) => {
  const text = $("clusters-text").value.trim();
  const asked = new URLSearchParams({ offset, limit: PAGE, text, order: $("clusters-order").value });
  try {
    show(await ask("GET", `/clusters?${asked}`, undefined, signal));
    status(told);
  } catch (error) {
    if (signal.aborted) throw error;
    if (error.status === 404) $("clusters-part").hidden = true;
    status(error.status === 404 ? "There are no clusters yet: finish on the page Start, or start the service with --clusters." : error.message);
  }
});

function show(found) {
  $("clusters-about").textContent =
    `${count(found.total, "cluster")} in ${found.folder}; the file without duplicates lacks ${count(found.removed, "row")}. ` +
    `The first question of each cluster represents it.${document.body.classList.contains("read-only") ? "" : " Every change is saved at once."}`;
  $("clusters-apart").hidden = !found.clusters.some(({ members }) => members.some(({ differ }) => differ));
  $("clusters").replaceChildren(...found.clusters.map(shownCluster));
  $("clusters-undo").disabled = !found.changes;
  $("clusters-undo").textContent = found.changes ? `Undo (${count(found.changes, "change")})` : "Undo";
  $("clusters-back").disabled = offset === 0;
  $("clusters-next").disabled = offset + PAGE >= found.total;
  $("merge-cancel").hidden = !merging;
  $("clusters-part").hidden = false;
}

function shownCluster(cluster) {
  const [head, ...others] = cluster.members;
  const card = make("li", "", "card");
  const list = make("ul", "", "members");
  const boxes = [];
  list.append(member(head, make("strong", "kept", "tag")));
  for (const each of others) {
    const box = make("input");
    box.type = "checkbox";
    box.ariaLabel = `Mark: ${each.question}`;
    box.onchange = () => (split.disabled = !boxes.some((one) => one.box.checked));
    boxes.push({ box, row: each.row });
    const keep = button("Keep this one", "link", () => change("represent", { cluster: cluster.id, row: each.row }));
    keep.ariaLabel = `Keep this one: ${each.question}`;
    const line = member(each, ...apart(each.differ), make("span", share(each.similarity), "number"), keep);
    line.prepend(box);
    list.append(line);
  }
  const unlisted = cluster.size - cluster.members.length;
  if (unlisted) list.append(make("li", `and ${number(unlisted)} more, which are more similar to the first`, "note"));
  const split = button("Split off selected", "quiet", () =>
    change("split", { cluster: cluster.id, rows: boxes.filter((one) => one.box.checked).map((one) => one.row) }),
  );
  split.disabled = true;
  const actions = make("div", "", "answers");
  if (others.length) actions.append(split);
  actions.append(mergeButton(cluster, head));
  card.append(list, actions);
  return card;
}

function mergeButton(cluster, head) {
  if (!merging) {
    return button("Merge another cluster into this …", "quiet", () => {
      merging = { id: cluster.id, question: head.question };
      told = `Choose the cluster to merge into “${head.question}”, on any page.`;
      clusters();
    });
  }
  const into = button(merging.id === cluster.id ? "Merge into this cluster" : "Merge this one", "", () => change("merge", { cluster: merging.id, other: cluster.id }));
  into.disabled = merging.id === cluster.id;
  return into;
}

function member({ question, id, row }, ...after) {
  const line = make("li");
  const text = make("p", question);
  text.append(make("span", id || `row ${number(row)}`, "id"));
  line.append(text, ...after);
  return line;
}

function button(text, className, act) {
  const made = make("button", text, className);
  made.type = "button";
  made.onclick = act;
  return made;
}

async function change(kind, body) {
  merging = null;
  told = "";
  try {
    await ask("POST", `/clusters/${kind}`, body);
  } catch (error) {
    told = error.message;
  }
  clusters();
}

async function exportThem() {
  $("clusters-export").disabled = true;
  $("exported").textContent = "Writing …";
  try {
    const { folder, files } = await ask("POST", "/clusters/export", {});
    $("exported").textContent = `Written to ${folder}.`;
    showFiles($("exported-files"), "/clusters/files", files, "exported");
  } catch (error) {
    $("exported").textContent = error.message;
  }
  $("clusters-export").disabled = false;
}

function turn(by) {
  offset = Math.max(0, offset + by);
  clusters();
  $("clusters-title").focus();
  scrollTo(0, 0);
}

$("clusters-form").addEventListener("submit", (event) => event.preventDefault());
$("clusters-form").addEventListener("input", () => {
  offset = 0;
  clusters(PAUSE);
});
$("clusters-undo").addEventListener("click", () => change("undo", {}));
$("clusters-export").addEventListener("click", exportThem);
$("clusters-back").addEventListener("click", () => turn(-PAGE));
$("clusters-next").addEventListener("click", () => turn(PAGE));
$("merge-cancel").addEventListener("click", () => {
  merging = null;
  told = "";
  clusters();
});
