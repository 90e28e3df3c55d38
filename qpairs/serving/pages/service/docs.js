// The description of the API: every request, its fields, an example that can be sent, and its errors once each.

import { $, make } from "./common.js";

let description;

/** A schema in which references are followed. */
function resolve(schema) {
  while (schema?.$ref) schema = schema.$ref.split("/").slice(1).reduce((found, part) => found[part], description);
  return schema ?? {};
}

/** Something that a schema allows, from its examples where it has some. */
function example(given, depth = 0) {
  const schema = resolve(given);
  if (schema.examples?.length) return schema.examples[0];
  if (schema.default !== undefined && schema.default !== null) return schema.default;
  if (schema.const !== undefined) return schema.const;
  if (schema.enum) return schema.enum[0];
  const some = schema.anyOf?.find((one) => one.type !== "null");
  if (some) return example(some, depth);
  if (depth > 5) return null;
  if (schema.type === "object" || schema.properties) {
    const needed = Object.entries(schema.properties ?? {}).filter(([name]) => (schema.required ?? []).includes(name));
    return Object.fromEntries(needed.map(([name, part]) => [name, example(part, depth + 1)]));
  }
  if (schema.type === "array") {
    if (schema.prefixItems) return schema.prefixItems.map((part) => example(part, depth + 1));
    return Array.from({ length: schema.minItems ?? 1 }, () => example(schema.items, depth + 1));
  }
  return { integer: schema.minimum ?? 1, number: 0.5, boolean: true }[schema.type] ?? "How do I pay?";
}

/** The kind of a value in a few words. */
function kind(given) {
  const schema = resolve(given);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.anyOf) return schema.anyOf.map(kind).join(" or ");
  if (schema.type === "array") return schema.items ? `list of ${kind(schema.items)}` : "list";
  const range = [schema.minimum !== undefined && `from ${schema.minimum}`, schema.maximum !== undefined && `to ${schema.maximum}`].filter(Boolean);
  const length = schema.maxLength ? [`at most ${schema.maxLength} characters`] : [];
  return [schema.type ?? "anything", ...range, ...length].join(" ");
}

function table(rows, heads, about) {
  const [made, head, body] = [make("table"), make("thead"), make("tbody")];
  made.ariaLabel = about;
  const line = make("tr");
  for (const name of heads) {
    const cell = make("th", name);
    cell.scope = "col";
    line.append(cell);
  }
  head.append(line);
  for (const cells of rows) {
    const row = make("tr");
    cells.forEach((text) => row.append(make("td", text)));
    body.append(row);
  }
  made.append(head, body);
  const scroll = make("div", "", "scroll");
  scroll.append(made);
  return scroll;
}

/** Name, kind and default of each field, those of what it holds below it. */
function fields(schema, lead = "") {
  const needed = schema.required ?? [];
  return Object.entries(schema.properties ?? {}).flatMap(([name, part]) => {
    const value = resolve(part).default ?? part.default;
    const must = needed.includes(name) ? "needed" : value === undefined || value === null ? "none" : JSON.stringify(value);
    const one = resolve(resolve(part).anyOf?.find((some) => some.type !== "null") ?? part);
    const [held, sign] = one.type === "array" ? [resolve(one.items), "[]"] : [one, ""];
    const below = lead.split(".").length < 3 ? fields(held, `${lead}${name}${sign}.`) : [];
    return [[lead + name, kind(part), must], ...below];
  });
}

/** A text whose parts between backticks are code. */
function prose(tag, text, className = "") {
  const made = make(tag, "", className);
  text.split("`").forEach((part, place) => made.append(place % 2 ? make("code", part) : part));
  return made;
}

function route(path, method, operation, number) {
  const [details, summary, inside] = [make("details", "", "card route"), make("summary"), make("div", "", "inside")];
  const [first, ...rest] = (operation.description ?? operation.summary ?? "").split("\n\n");
  summary.append(make("span", method.toUpperCase(), "method"), make("code", path), prose("span", first));
  for (const text of rest) inside.append(prose("p", text, "note"));
  const json = operation.requestBody?.content?.["application/json"]?.schema;
  const body = json && resolve(json);
  if (body?.properties && Object.keys(body.properties).length) inside.append(make("h2", "Body"), table(fields(body), ["field", "kind", "default"], "Fields of the body"));
  const inputs = (operation.parameters ?? []).map((parameter) => asInput(parameter, number));
  inside.append(...inputs.flatMap(({ shown }) => shown));
  const text = json ? bodyInput(json, number, inside) : null;
  inside.append(...sender(path, method, inputs, text));
  const answers = Object.entries(operation.responses ?? {});
  const good = answers.find(([code]) => code < "400");
  const schema = good && resolve(good[1].content?.["application/json"]?.schema);
  if (schema?.properties) inside.append(make("h2", `Answer (${good[0]})`), table(fields(schema).map(([name, what]) => [name, what]), ["field", "kind"], "Fields of the answer"));
  const errors = answers.filter(([code]) => code >= "400").map(([code, { description }]) => [code, description]);
  if (errors.length) inside.append(make("h2", "Errors"), table(errors, ["status", "when"], "Errors"));
  details.append(summary, inside);
  return details;
}

function asInput(parameter, number) {
  const [label, input] = [make("label", `${parameter.name}: ${kind(parameter.schema)}`), make("input")];
  label.htmlFor = input.id = `input-${number}-${parameter.name}`;
  const value = resolve(parameter.schema).default;
  input.value = value ?? (parameter.required ? "7" : "");
  return { parameter, input, shown: [label, input] };
}

function bodyInput(schema, number, inside) {
  const [label, text] = [make("label", "Body to send"), make("textarea")];
  label.htmlFor = text.id = `body-${number}`;
  text.value = JSON.stringify(example(schema), null, 1);
  text.rows = Math.min(12, text.value.split("\n").length + 1);
  text.spellcheck = false;
  inside.append(label, text);
  return text;
}

function sender(path, method, inputs, text) {
  const [row, button, command, answer, said] = [make("div", "", "answers"), make("button", "Send"), make("pre"), make("pre"), make("p", "", "note")];
  button.type = "button";
  said.role = "status";
  for (const [block, about] of [[command, "As a command"], [answer, "Answer"]]) {
    block.tabIndex = 0;
    block.role = "region";
    block.ariaLabel = `${about}: ${method.toUpperCase()} ${path}`;
  }
  answer.hidden = true;
  const address = () => {
    let filled = path;
    const query = new URLSearchParams();
    for (const { parameter, input } of inputs) {
      if (parameter.in === "path") filled = filled.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
      else if (input.value) query.set(parameter.name, input.value);
    }
    return filled + (query.size ? `?${query}` : "");
  };
  const quoted = (value) => `'${value.replaceAll("'", "'\\''")}'`;
  const show = () => {
    const parts = ["curl", ...(method === "get" ? [] : ["-X", method.toUpperCase()])];
    if (!$("secured").hidden) parts.push("-H", '"Authorization: Bearer $QPAIRS_TOKEN"');
    if (text) parts.push("-H", quoted("content-type: application/json"), "-d", quoted(text.value.replace(/\n\s*/g, "")));
    command.textContent = [...parts, quoted(location.origin + address())].join(" ");
  };
  for (const input of [text, ...inputs.map((one) => one.input)]) input?.addEventListener("input", show);
  show();
  button.onclick = async () => {
    button.disabled = true;
    const headers = { ...(text && { "Content-Type": "application/json" }), ...($("key").value && { Authorization: `Bearer ${$("key").value}` }) };
    try {
      const response = await fetch(address(), { method: method.toUpperCase(), headers, body: text?.value });
      const content = await response.text();
      said.textContent = `${response.status} ${response.statusText}`;
      answer.textContent = pretty(content);
      answer.hidden = !content;
    } catch {
      said.textContent = "The service does not answer.";
      answer.hidden = true;
    }
    button.disabled = false;
  };
  row.append(button);
  return [row, said, answer, make("h2", "As a command"), command];
}

function pretty(content) {
  try {
    return JSON.stringify(JSON.parse(content), null, 1);
  } catch {
    return content;
  }
}

try {
  description = await (await fetch("/openapi.json")).json();
  $("secured").hidden = !description.components?.securitySchemes;
  $("key").value = sessionStorage.getItem("token") ?? "";
  let number = 0;
  for (const [path, operations] of Object.entries(description.paths)) {
    for (const [method, operation] of Object.entries(operations)) $("routes").append(route(path, method, operation, number++));
  }
  $("docs-status").textContent = "";
} catch {
  $("docs-status").textContent = "The description cannot be read; reload the page.";
}
