// A file of questions from this computer: sending it, choosing its columns, and the wait until it can be worked on.

import { $, ask, make, send } from "./common.js";

const AGAIN = 500; // milliseconds between two looks at what the service does
const SHOWN = 160; // characters of an example

let state = null; // null: this service takes no files
let watching = 0;
let awaited = false; // whether this page has asked for the file to be opened

export const takesFiles = () => state !== null;

/** Shows where a file can be sent, if this service takes files. */
export async function showUpload() {
  try {
    show(await ask("GET", "/start/upload"));
  } catch (error) {
    if (error.status !== 404) say(error.message);
  }
}

const megabytes = (bytes) => (bytes >= 1e6 ? `${+(bytes / 1e6).toFixed(1)} MB` : `${+(bytes / 1e3).toFixed(1)} kB`);

function say(error, work = "") {
  $("upload-status").textContent = error || work;
  $("upload-status").classList.toggle("wrong", Boolean(error));
}

function show(found) {
  const other = state?.file !== found.file || state?.texts.length !== found.texts.length;
  state = found;
  const { work, error, opened, texts, limit, endings, compressed } = state;
  if (awaited && opened && !work && !error) return location.reload(); // it has other views now
  $("upload").hidden = false;
  $("upload-summary").textContent = opened ? "Work on another file" : "Choose a file of questions";
  if (opened) $("session").append($("upload")); // below what is worked on
  else $("upload").open = true;
  $("upload-about").textContent =
    `${endings.join(" ")}, also compressed (${compressed.join(" ")}); at most ${megabytes(limit)}. ` +
    "It is kept in a private folder of this service.";
  $("columns-form").hidden = !texts.length;
  if (other && texts.length) showColumns(state);
  $("choose").disabled = $("open").disabled = Boolean(work);
  $("upload-bar").hidden = !work;
  if (work?.total) [$("upload-bar").max, $("upload-bar").value] = [work.total, work.done];
  else $("upload-bar").removeAttribute("value");
  say(error, work ? `At work: ${work.stage} …` : "");
  if (error) awaited = false;
  clearTimeout(watching);
  if (work) watching = setTimeout(showUpload, AGAIN);
}

function showColumns({ file, texts, columns, sure }) {
  const option = (name, text = name) => Object.assign(make("option", text), { value: name });
  $("columns-file").textContent = file;
  $("text-column").replaceChildren(...texts.map(({ name }) => option(name)));
  $("id-column").replaceChildren(option("", "no column: the number of the row"), ...columns.map((name) => option(name)));
  $("columns-sure").textContent = sure ? "" : "Several columns hold texts: which are the questions?";
  showExample();
}

function showExample() {
  const example = state.texts.find(({ name }) => name === $("text-column").value)?.example ?? "";
  $("column-example").textContent = example && `For example: ${example.slice(0, SHOWN)}`;
}

/** Sends a file; what the service would refuse after all of it has arrived is refused here, before. */
async function upload(file) {
  if (!file || !state || state.work) return;
  $("columns-form").hidden = true;
  if (file.size > state.limit) return say(`${file.name} has ${megabytes(file.size)}; at most ${megabytes(state.limit)} are taken.`);
  if (!file.size) return say(`${file.name} is empty.`);
  const ending = `.${file.name.split(".").at(-1).toLowerCase()}`;
  if (![...state.endings, ...state.compressed].includes(ending)) return say(`${file.name}: ${ending} files are not read.`);
  say("", `Sending ${file.name} …`);
  $("upload-bar").hidden = false;
  try {
    show(await send(`/start/upload/${encodeURIComponent(file.name)}`, file));
  } catch (error) {
    say(error.message);
    $("upload-bar").hidden = true;
  }
}

$("choose").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  upload($("file").files[0]);
  $("file").value = ""; // the same file may be sent again
});
$("text-column").addEventListener("change", showExample);
$("columns-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  awaited = true;
  const body = { text_column: $("text-column").value, id_column: $("id-column").value, skip_bad_rows: $("skip-bad").checked };
  try {
    show(await ask("POST", "/start/open", body));
  } catch (error) {
    awaited = false;
    say(error.message);
  }
});

for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  $("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop") upload(event.dataTransfer.files[0]);
  });
}
// Beside the field, a dropped file would take the place of the page.
for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());
