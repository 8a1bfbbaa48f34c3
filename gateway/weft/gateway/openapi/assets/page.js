"use strict";
// Reads /openapi.json and shows each skill once, with a form for every door it can be called through.
// Text is only ever set as text, never as HTML: names and descriptions come from agents.

const $ = (id) => document.getElementById(id);

function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

let api = null;

// ---- Reading the document

const deref = (schema) => {
  const seen = new Set();
  while (schema && schema.$ref && !seen.has(schema.$ref)) {
    seen.add(schema.$ref);
    schema = schema.$ref.split("/").slice(1).reduce((at, part) => at && at[part], api);
  }
  return schema || {};
};

function skillsOf(document_) {
  const skills = new Map();
  for (const [path, operations] of Object.entries(document_.paths)) {
    for (const [verb, operation] of Object.entries(operations)) {
      const name = operation["x-weft-method"] || operation.operationId;
      if (!skills.has(name)) skills.set(name, { name, agent: operation.tags[0], doors: [], about: operation });
      skills.get(name).doors.push({ path, verb: verb.toUpperCase(), operation });
    }
  }
  return [...skills.values()];
}

function typeName(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop().split(".").pop();
  const types = [schema.type].flat().filter((each) => each && each !== "null");
  if (types[0] === "array") return `${typeName(schema.items)}[]`;
  if (types[0] === "object" && typeof schema.additionalProperties === "object") {
    return `map of ${typeName(schema.additionalProperties)}`;
  }
  return schema.format && !["double", "float"].includes(schema.format) ? schema.format : types.join(" or ") || "any";
}

function sample(schema, depth = 0) {
  const found = deref(schema);
  if (found.example !== undefined) return found.example;
  if (found.examples) return found.examples[0];
  if (found.enum) return found.enum.find((name) => !name.endsWith("_UNSPECIFIED")) || found.enum[0];
  const type = [found.type].flat()[0];
  if (type === "object") {
    const needed = new Set(found.required || []);
    const result = {};
    for (const [name, property] of Object.entries(found.properties || {})) {
      if (property.readOnly) continue;
      const inner = deref(property);
      const nests = inner.type === "object" || inner.type === "array";
      if (needed.has(name) || (depth === 0 && !nests)) result[name] = sample(property, depth + 1);
    }
    return result;
  }
  if (found.format === "date-time") return new Date().toISOString();
  if (found.format === "int64" || found.format === "uint64") return "0";
  return { array: [], integer: 0, number: 0, boolean: false, string: "" }[type] ?? null;
}

// ---- Showing JSON

function painted(value) {
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 2);
  const pre = h("pre");
  if (text.length > 200_000) {
    pre.textContent = text;
    return pre;
  }
  const tokens = /("(?:[^"\\]|\\.)*")(\s*:)?|\b(true|false|null)\b|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)/g;
  let at = 0;
  for (const match of text.matchAll(tokens)) {
    const [whole, string, colon, word, number] = match;
    pre.append(text.slice(at, match.index));
    if (colon) pre.append(h("span", { class: "k" }, string), colon);
    else pre.append(h("span", { class: string ? "s" : word ? "w" : number ? "n" : "" }, whole));
    at = match.index + whole.length;
  }
  pre.append(text.slice(at));
  return pre;
}

function jsonOr(text) {
  try { return JSON.parse(text); } catch { return undefined; }
}

function typeTree(schema) {
  const found = deref(schema);
  const inner = found.type === "array" ? deref(found.items) : found;
  const properties = Object.entries(inner.properties || {});
  const needed = new Set(inner.required || []);
  return h("ul", {}, properties.map(([name, property]) => {
    const target = deref(property.type === "array" ? property.items : property);
    const title = [
      h("code", {}, name), " ", h("code", { class: "type" }, typeName(property)),
      needed.has(name) ? h("small", { class: "must" }, " required") : null,
      property.description ? h("small", {}, ` ${property.description}`) : null,
    ];
    if (target.enum) return h("li", {}, title, h("small", {}, ` ${target.enum.join(", ")}`));
    if (!target.properties) return h("li", {}, title);
    const details = h("details", { ontoggle: () => {
      if (details.open && details.children.length === 1) details.append(typeTree(target));
    } }, h("summary", {}, title));
    return h("li", {}, details);
  }));
}

// ---- One door of a skill: a form, and what came back

function control(parameter, id) {
  const schema = deref(parameter.schema);
  const shown = parameter.example === undefined ? "" : String(parameter.example);
  const options = schema.enum || (schema.type === "boolean" ? ["true", "false"] : null);
  const required = Boolean(parameter.required);
  if (options && schema.type !== "array") {
    const select = h("select", { id, required }, ["", ...options].map((each) => h("option", { value: each }, each || "–")));
    select.value = options.includes(shown) ? shown : "";
    return select;
  }
  if (schema.type === "array") {
    return h("textarea", { id, rows: 2, placeholder: "one value a line", spellcheck: false });
  }
  const input = h("input", { id, required, spellcheck: false, autocomplete: "off" });
  if (schema.format === "password") input.type = "password";
  input.value = shown;
  return input;
}

function doorView(skill, door) {
  const { operation } = door;
  const base = `f-${operation.operationId}`;
  const fields = (operation.parameters || []).map((parameter, n) => {
    const id = `${base}-${n}`;
    return { parameter, id, input: control(parameter, id) };
  });
  const content = operation.requestBody && operation.requestBody.content["application/json"];
  let editor = null, problem = null, bodyPart = null;
  if (content) {
    const examples = Object.values(content.examples || {}).map((each) => each.value);
    const first = examples.length ? examples[0] : sample(content.schema);
    editor = h("textarea", { id: `${base}-body`, spellcheck: false, "aria-describedby": `${base}-problem` });
    editor.value = JSON.stringify(first, null, 2);
    problem = h("p", { class: "problem", id: `${base}-problem`, role: "alert", hidden: true });
    editor.addEventListener("input", () => checkBody());
    const more = examples.length > 1 ? h("span", {}, examples.map((each, n) => h("button", {
      class: "plain", type: "button", onclick: () => { editor.value = JSON.stringify(each, null, 2); checkBody(); },
    }, `Example ${n + 1}`))) : null;
    bodyPart = h("div", { class: "body" },
      h("label", { for: editor.id }, h("span", {}, "Body, JSON"), more), editor, problem);
  }

  function checkBody() {
    if (!editor) return true;
    let message = "";
    try { if (editor.value.trim()) JSON.parse(editor.value); } catch (error) { message = error.message; }
    editor.setAttribute("aria-invalid", String(Boolean(message)));
    problem.hidden = !message;
    problem.textContent = message;
    return !message;
  }

  function request() {
    const query = new URLSearchParams();
    let path = door.path;
    for (const { parameter, input } of fields) {
      if (parameter.in === "path") {
        const slashes = parameter["x-weft-slashes"];
        const encoded = slashes ? input.value.split("/").map(encodeURIComponent).join("/") : encodeURIComponent(input.value);
        path = path.replace(`{${parameter.name}}`, () => encoded);
      } else {
        const many = input.tagName === "TEXTAREA";
        const values = many ? input.value.split("\n").filter(Boolean) : [input.value];
        for (const value of values) if (value !== "") query.append(parameter.name, value);
      }
    }
    const headers = {};
    if ($("key").value) headers.authorization = `Bearer ${$("key").value}`;
    if (editor) headers["content-type"] = "application/json";
    const search = query.toString();
    const body = editor ? editor.value.trim() || "{}" : undefined;
    return { url: path + (search ? `?${search}` : ""), init: { method: door.verb, headers, body } };
  }

  const answer = h("section", { class: "answer", hidden: true, "aria-live": "polite", "aria-label": "Answer" });
  const stop = h("button", { class: "plain", type: "button", hidden: true }, "Stop");
  let running = null;
  stop.addEventListener("click", () => running && running.abort());

  const form = h("form", { novalidate: true, onsubmit: async (event) => {
    event.preventDefault();
    let missing = null;
    for (const { parameter, input } of fields) {
      const empty = Boolean(parameter.required) && !input.value;
      input.setAttribute("aria-invalid", String(empty));
      if (empty) missing = missing || input;
    }
    if (missing) return missing.focus();
    if (!checkBody()) return editor.focus();
    if (running) running.abort();
    const mine = new AbortController();
    running = mine;
    stop.hidden = false;
    await send(request(), answer, mine);
    if (running === mine) { running = null; stop.hidden = true; }
  } },
  fields.length ? h("div", { class: "fields" }, fields.map(({ parameter, id, input }) => [
    h("label", { for: id }, parameter.name, parameter.required ? h("b", { title: "required" }, " *") : null),
    h("div", {}, input, h("small", {}, [typeName(parameter.schema), parameter.description].filter(Boolean).join(" · "))),
  ])) : null,
  bodyPart,
  h("div", { class: "actions" },
    h("button", { class: "send", type: "submit" }, "Send"), stop,
    h("button", { class: "plain", type: "button", onclick: (event) => copy(event.currentTarget, curl(request())) }, "Copy as curl"),
    h("span", { class: "hint" }, "Ctrl + Enter sends")));
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); form.requestSubmit(); }
  });

  const reply = Object.values(operation.responses["200"].content)[0].schema;
  const types = h("div", { class: "types" },
    content ? h("details", {}, h("summary", {}, "Request ", h("code", { class: "type" }, typeName(content.schema))), typeTree(content.schema)) : null,
    h("details", {}, h("summary", {}, "Reply ", h("code", { class: "type" }, typeName(reply))), typeTree(reply)));
  return h("div", { role: "tabpanel" }, form, answer, types);
}

function curl({ url, init }) {
  const quote = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
  const stream = init.body === undefined ? "" : ` \\\n  --data ${quote(init.body)}`;
  const headers = Object.entries(init.headers)
    .map(([name, value]) => ` \\\n  -H ${quote(`${name}: ${name === "authorization" ? "Bearer $WEFT_KEY" : value}`)}`)
    .map((line) => line.includes("$WEFT_KEY") ? line.replaceAll("'", '"') : line);
  return `curl -N -X ${init.method} ${quote(location.origin + url)}${headers.join("")}${stream}`;
}

async function copy(button, text) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    prompt("Copy this:", text);
  }
  setTimeout(() => { button.textContent = before; }, 1400);
}

async function send({ url, init }, answer, abort) {
  const begun = performance.now();
  const status = h("span", { class: "status running" }, "…");
  const timing = h("span", {});
  const header = h("header", {}, status, timing);
  answer.hidden = false;
  answer.replaceChildren(header);
  const tick = () => { timing.textContent = `${Math.round(performance.now() - begun)} ms`; };
  try {
    const response = await fetch(url, { ...init, signal: abort.signal, redirect: "error" });
    tick();
    status.textContent = `${response.status} ${response.statusText}`.trim();
    status.classList.toggle("good", response.ok);
    const trace = (response.headers.get("traceparent") || "").split("-")[1];
    if (trace) header.append(h("span", { class: "mono", title: "weft trace " + trace }, `trace ${trace}`));
    if ((response.headers.get("content-type") || "").startsWith("text/event-stream")) {
      await showEvents(response, answer, status, begun);
    } else {
      const text = await response.text();
      const value = jsonOr(text);
      answer.append(value === undefined ? h("pre", {}, text || "(empty)") : painted(value));
    }
    tick();
  } catch (error) {
    const stopped = abort.signal.aborted;
    if (!stopped || status.textContent === "…") status.textContent = stopped ? "stopped" : "no answer";
    if (!stopped) answer.append(h("pre", {}, String(error)));
  }
  status.classList.remove("running");
}

async function showEvents(response, answer, status, begun) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer += value.replaceAll("\r\n", "\n");
    for (let end; (end = buffer.indexOf("\n\n")) >= 0; buffer = buffer.slice(end + 2)) {
      const event = { name: "message", data: [] };
      for (const line of buffer.slice(0, end).split("\n")) {
        const [, field, text] = line.match(/^([^:]*):? ?(.*)$/);
        if (field === "data") event.data.push(text);
        if (field === "event") event.name = text;
      }
      if (!event.data.length || event.name === "end") continue;
      if (event.name === "error") { status.textContent += ", then failed"; status.classList.remove("good"); }
      const text = event.data.join("\n");
      const parsed = jsonOr(text);
      const stamp = h("span", {}, `+${Math.round(performance.now() - begun)} ms`);
      answer.append(h("div", { class: "event" }, stamp, painted(parsed === undefined ? text : parsed)));
    }
  }
}

// ---- The page

const hue = (name) => {
  let sum = 0;
  for (const letter of name) sum = (sum * 31 + letter.charCodeAt(0)) >>> 0;
  return `hsl(${(sum * 137) % 360} 62% 54%)`;
};

function skillCard(skill) {
  const { about, doors } = skill;
  const first = doors[0];
  const name = skill.name.split("/").pop();
  const inside = h("div", { class: "inside" });
  const card = h("details", { class: "skill", id: skill.name, ontoggle: () => {
    if (!card.open || inside.children.length) return;
    const chips = [
      about["x-weft-idempotency"] === "NO_SIDE_EFFECTS" ? "changes nothing" : null,
      about["x-weft-idempotency"] === "IDEMPOTENT" ? "safe to repeat" : null,
      about.responses["200"].content["text/event-stream"] ? "streams" : null,
      `answers within ${about["x-weft-timeout-seconds"]} s`,
      ...((about.security || [])[0] ? Object.values(about.security[0])[0] : []).map((scope) => `scope ${scope}`),
      ...(about["x-weft-tags"] || []),
    ];
    const panel = h("div");
    const tabs = doors.map((door) => h("button", {
      type: "button", role: "tab", class: "mono",
      onclick: (event) => choose(event.currentTarget, door),
    }, door.operation["x-weft-connect"] ? "Connect" : `${door.verb} ${door.path}`));
    const views = new Map();
    function choose(tab, door) {
      for (const each of tabs) each.setAttribute("aria-selected", String(each === tab));
      if (!views.has(door)) views.set(door, doorView(skill, door));
      panel.replaceChildren(views.get(door));
    }
    inside.append(
      h("div", { class: "chips" }, h("code", { class: "chip" }, skill.name), chips.filter(Boolean).map((each) => h("span", { class: "chip" }, each))),
      h("div", { class: "doors", role: "tablist", "aria-label": "Ways to call it" }, tabs), panel);
    choose(tabs[0], first);
  } },
  h("summary", {},
    h("span", { class: "badge", "data-verb": first.verb }, first.verb),
    h("span", {}, h("span", { class: "name" }, name), " ", h("code", {}, first.path),
      about.description ? h("span", { class: "about" }, about.description) : null)),
  inside);
  skill.card = card;
  skill.words = [skill.name, skill.agent, about.description, ...(about["x-weft-tags"] || []),
    ...doors.map((door) => door.path)].join(" ").toLowerCase();
  return card;
}

function show() {
  const skills = skillsOf(api);
  const agents = new Map((api.tags || []).map((tag) => [tag.name, { ...tag, skills: [] }]));
  for (const skill of skills) agents.get(skill.agent).skills.push(skill);
  const index = [], sections = [];
  for (const agent of agents.values()) {
    agent.section = h("section", { class: "agent" },
      h("h2", {}, agent.name, agent["x-weft-tier"] ? h("span", { class: "chip" }, agent["x-weft-tier"]) : null),
      agent.description ? h("p", {}, agent.description) : null,
      agent.skills.map(skillCard));
    agent.index = h("div", {}, h("h2", {}, agent.name), h("ul", {}, agent.skills.map((skill) => {
      skill.link = h("li", {}, h("a", { href: `#${skill.name}` }, skill.name.split("/").pop()));
      return skill.link;
    })));
    for (const part of [agent.section, agent.index]) part.style.setProperty("--hue", hue(agent.name));
    sections.push(agent.section);
    index.push(agent.index);
  }
  const count = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
  const empty = h("p", { class: "empty", hidden: skills.length > 0 },
    skills.length ? "Nothing of that name." : "No agent has registered yet. This page reads the list again when you reload it.");
  $("skills").replaceChildren(
    h("div", { class: "intro" },
      h("h1", {}, `${count(skills.length, "skill")} of ${count(agents.size, "agent")}`),
      h("p", {}, api.info.description, " ", h("a", { href: "/openapi.json" }, "openapi.json"))),
    ...sections, empty);
  $("index").replaceChildren(...index);
  $("filter").addEventListener("input", () => {
    const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    for (const agent of agents.values()) {
      let here = 0;
      for (const skill of agent.skills) {
        const fits = words.every((word) => skill.words.includes(word));
        skill.card.hidden = skill.link.hidden = !fits;
        here += fits;
      }
      agent.section.hidden = agent.index.hidden = !here;
      found += here;
    }
    empty.hidden = found > 0;
  });
  openFromHash();
}

function openFromHash() {
  const card = $(decodeURIComponent(location.hash.slice(1)));
  if (card && card.classList.contains("skill")) {
    card.open = true;
    card.scrollIntoView();
  }
}

function rememberSettings() {
  const root = document.documentElement;
  const stored = (store, name) => { try { return store.getItem(name) || ""; } catch { return ""; } };
  const keep = (store, name, value) => { try { store.setItem(name, value); } catch { /* a private window */ } };
  root.dataset.theme = stored(localStorage, "weft-theme");
  $("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    keep(localStorage, "weft-theme", root.dataset.theme);
  });
  $("key").value = stored(sessionStorage, "weft-key"); // gone with the tab
  $("key").addEventListener("change", () => keep(sessionStorage, "weft-key", $("key").value));
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) {
      event.preventDefault();
      $("filter").focus();
    }
  });
}

async function start() {
  rememberSettings();
  addEventListener("hashchange", openFromHash);
  try {
    const response = await fetch("/openapi.json");
    if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
    api = await response.json();
    show();
  } catch (error) {
    $("skills").replaceChildren(h("div", { class: "failure" },
      h("h2", {}, "The list of skills cannot be read"),
      h("p", {}, `${error.message}. Is the gateway up? Reload to try again.`)));
  }
}

start();
