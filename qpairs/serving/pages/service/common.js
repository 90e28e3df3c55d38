// What all views of the page share. What people wrote enters the document as text alone, never as markup.

const WORD = /[\p{L}\p{N}]+(?:['’][\p{L}\p{N}]+)*[+#]*/gu; // C++ is not C#
// Words that say how something is asked rather than what: they match nearly everywhere, so they are not marked.
const COMMON = new Set(
  ("a an the this that these those and or but nor so if than then as of in on at by to for from with without into onto about " +
    "over under after before between during is are was were am be been being do does did done doing have has had having can could " +
    "will would shall should may might must i me my mine myself you your yours we us our ours he him his she her hers it its they " +
    "them their theirs who whom whose which what when where why how there here not no any some all each every both other such only " +
    "just also too very much many more most one ones get got it's i'm i've don't can't isn't what's how's there's").split(" "),
);

export const $ = (id) => document.getElementById(id);

export function make(tag, text = "", className = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  element.className = className;
  return element;
}

// Asking the service

export class Refusal extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export async function call(method, path, body, signal) {
  const token = sessionStorage.getItem("token");
  const isFile = body instanceof Blob;
  const type = isFile ? "application/octet-stream" : "application/json";
  const headers = { ...(body && { "Content-Type": type }), ...(token && { Authorization: `Bearer ${token}` }) };
  let response;
  try {
    response = await fetch(path, { method, headers, body: isFile ? body : body && JSON.stringify(body), signal });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Refusal(0, "The service does not answer.");
  }
  if (response.status === 401) {
    if (token === sessionStorage.getItem("token")) await askForToken(token !== null);
    return call(method, path, body, signal);
  }
  if (!response.ok) {
    const detail = (await response.json().catch(() => ({}))).detail;
    throw new Refusal(response.status, typeof detail === "string" ? detail : `The service refused (${response.status}).`);
  }
  return response;
}

export const ask = async (...request) => (await call(...request)).json();
export const send = (path, file) => ask("PUT", path, file);

let asking = null;
export const isAsking = () => asking !== null;

function askForToken(refused) {
  asking ??= new Promise((resolve, reject) => {
    $("token-note").textContent = refused ? "That token was refused." : "It is kept until this tab is closed.";
    $("token-note").classList.toggle("wrong", refused);
    $("token").value = "";
    $("token-dialog").showModal();
    $("token-form").onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem("token", $("token").value);
      resolve();
      $("token-dialog").close();
    };
    $("token-dialog").onclose = () => {
      asking = null;
      reject(new Refusal(401, "The service needs a token; reload the page to enter it."));
    };
  });
  return asking;
}

/** Runs a task when nothing newer comes within `wait` milliseconds; what comes late of an older run is dropped. */
export function newest(task) {
  let current = new AbortController();
  return (wait = 0) => {
    current.abort();
    const { signal } = (current = new AbortController());
    setTimeout(async () => {
      try {
        if (!signal.aborted) await task(signal);
      } catch (error) {
        if (!signal.aborted) throw error;
      }
    }, wait);
  };
}

// Words

export const number = (value) => value.toLocaleString("en");
export const count = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;
export const percent = (p) => (p < 0.01 ? "< 1 %" : p > 0.99 ? "> 99 %" : `${Math.round(100 * p)} %`);
const plain = (word) => word.toLowerCase().replaceAll("’", "'");
export const words = (text) => new Map((text.match(WORD) ?? []).map((word) => [plain(word), word]));

/** An element with a text in which some words are marked, neighbours by one mark, those that all use by none. */
export function marked(tag, text, some) {
  const element = make(tag);
  let end = 0;
  for (const { 0: word, index } of text.matchAll(WORD)) {
    if (!some.has(plain(word)) || COMMON.has(plain(word))) continue;
    const gap = text.slice(end, index);
    if (element.lastChild?.nodeName === "MARK" && !gap.trim()) element.lastChild.textContent += gap + word;
    else element.append(gap, make("mark", word));
    end = index + word.length;
  }
  element.append(text.slice(end));
  return element;
}

export function tell(id, text, kind = "") {
  $(id).textContent = text;
  $(id).parentElement.classList.toggle("sure", kind === "sure");
  $(id).parentElement.classList.toggle("wrong", kind === "wrong");
}


/** Lets the browser save what the service sends. */
export async function save(path, name) {
  const file = await (await call("GET", path)).blob();
  const link = make("a");
  link.href = URL.createObjectURL(file);
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

/** Buttons that save files, in a list; what fails is said in the element with the id `status`. */
export function showFiles(list, folder, names, status) {
  list.replaceChildren(
    ...names.map((name) => {
      const [row, button] = [make("li"), make("button", `Save ${name}`, "quiet")];
      button.type = "button";
      button.onclick = () => save(`${folder}/${encodeURIComponent(name)}`, name).catch((error) => ($(status).textContent = error.message));
      row.append(button);
      return row;
    }),
  );
}

export const share = (value) => value.toFixed(2);

/** A mark at two questions that differ in one name, number or sign alone, with the word of each; nothing at others. */
export const apart = (words) => (words ? [make("span", `one word apart: ${words.join(" / ")}`, "tag apart")] : []);

/** An interval and the value in it, all from 0 to 1, drawn as a bar. */
export function bar(low, high, value) {
  const drawn = make("i");
  for (const [name, at] of Object.entries({ low, high, value })) drawn.style.setProperty(`--${name}`, at);
  return drawn;
}
