// A file of questions from this computer: sending it, choosing its columns, and the wait until it can be worked on.

import { $, ask, make, send } from "./common.js";

const AGAIN = 500; // milliseconds between two looks at what the service does
const SHOWN = 160; // characters of an example

let state = null; // null: this service takes no files
let watching = 0;
let reading = false; // whether the columns are asked for
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
  const other = read(state) !== read(found);
  state = found;
  const { file, work, error, opened, texts, limit, endings, compressed } = state;
  if (awaited && opened && !work && !error) return location.reload(); // it has other views now
  $("upload").hidden = false;
  $("upload-summary").textContent = opened ? "Open another file" : "Choose a file of questions";
  if (opened) $("session").append($("upload")); // below what is worked on
  else $("upload").open = true;
  $("upload-about").textContent =
    `${endings.join(" ")}, also compressed (${compressed.join(" ")}); at most ${megabytes(limit)}. ` +
    "It is kept in a private folder of this service.";
  $("columns-form").hidden = !file || (!texts.length && !state.separated_by && !state.separator);
  $("columns-part").hidden = !texts.length;
  if (other) showSeparator(state);
  if (other && texts.length) showColumns(state);
  for (const id of ["choose", "open", "separator", "other"]) $(id).disabled = Boolean(work);
  $("upload-bar").hidden = !work;
  if (work?.total) [$("upload-bar").max, $("upload-bar").value] = [work.total, work.done];
  else $("upload-bar").removeAttribute("value");
  say(error, work ? `At work: ${work.stage} …` : "");
  if (error) awaited = false;
  clearTimeout(watching);
  if (work) watching = setTimeout(showUpload, AGAIN);
}

/** What the choice of columns depends on. */
const read = (at) => at && JSON.stringify([at.file, at.separator, at.separated_by, at.columns, at.texts]);

const option = (name, text = name) => Object.assign(make("option", text), { value: name });
const NAMES = { ",": "comma", ";": "semicolon", "\t": "tab", "|": "bar |" };

function showSeparator({ file, separator, separated_by: by }) {
  $("columns-file").textContent = file;
  $("separator-part").hidden = !by && !separator;
  $("separator").options[0].textContent = by && !separator ? `automatic: ${NAMES[by] ?? by}` : "automatic";
  const listed = [...$("separator").options].some(({ value }) => value === separator);
  $("separator").value = listed ? separator : "other";
  $("other").value = listed ? "" : separator;
  $("other-part").hidden = listed;
}

/** The separator that is chosen, as a request names it. */
const separator = () => ($("separator-part").hidden ? "" : $("separator").value === "other" ? $("other").value : $("separator").value);

/** Shows the columns to choose from, those of texts first; what was chosen before stays, where there is such a column. */
function showColumns({ texts, columns, sure }) {
  const names = [...new Set([...texts.map(({ name }) => name), ...columns])];
  const [text, id, joined] = [$("text-column").value, $("id-column").value, new Set(joinedColumns())];
  $("text-column").replaceChildren(...names.map((name) => option(name)));
  if (names.includes(text)) $("text-column").value = text;
  $("id-column").replaceChildren(option("", "no column: use the row number"), ...columns.map((name) => option(name)));
  if (columns.includes(id)) $("id-column").value = id;
  $("join").replaceChildren(
    ...columns.map((name) => {
      const [label, box] = [make("label", "", "check"), make("input")];
      Object.assign(box, { type: "checkbox", value: name, checked: joined.has(name) });
      label.append(box, ` ${name}`);
      return label;
    }),
  );
  $("columns-sure").textContent = sure ? "" : "Several columns hold texts: which one holds the questions?";
  showExample();
}

const boxes = () => [...$("join").querySelectorAll("input")];
const joinedColumns = () => boxes().filter(({ checked }) => checked).map(({ value }) => value);
/** The columns whose texts are the questions, the chosen one first. */
const questionColumns = () => [$("text-column").value, ...joinedColumns().filter((name) => name !== $("text-column").value)];

function showExample() {
  for (const box of boxes()) box.parentElement.hidden = box.value === $("text-column").value;
  $("join-part").hidden = boxes().length < 2;
  const texts = questionColumns().map((name) => state.row[state.columns.indexOf(name)] ?? "");
  const example = texts.filter((text) => text.trim()).join(" ");
  $("column-example").textContent = example && `For example: ${example.slice(0, SHOWN)}${example.length > SHOWN ? " …" : ""}`;
}

async function readColumns() {
  if (reading) return; // the Enter key changes the field and sends the form
  reading = true;
  try {
    show(await ask("POST", "/start/columns", { separator: separator() }));
  } catch (error) {
    say(error.message);
  }
  reading = false;
}

/** Sends a file; what the service would refuse after all of it has arrived is refused here, before. */
async function upload(file) {
  if (!file || !state || state.work) return;
  $("columns-form").hidden = true;
  if (file.size > state.limit) return say(`${file.name} has ${megabytes(file.size)}; the limit is ${megabytes(state.limit)}.`);
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
$("join").addEventListener("change", showExample);
$("separator").addEventListener("change", () => {
  $("other-part").hidden = $("separator").value !== "other";
  if ($("separator").value !== "other") readColumns();
  else $("other").focus();
});
$("other").addEventListener("change", readColumns);
$("columns-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (separator() !== state.separator) return readColumns(); // by the Enter key
  awaited = true;
  const [text_column, id_column] = [questionColumns().join(","), $("id-column").value];
  const body = { text_column, id_column, separator: separator(), skip_bad_rows: $("skip-bad").checked };
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
