"use strict";
// What all pages share. Names are data: they go into text nodes, never into markup.

const DATA = JSON.parse(document.getElementById("data").textContent);

// An element with attributes and children; strings become text nodes, an attribute `on...` a listener.
function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return made;
}

// A number to four digits, whole thousands grouped: as the tables in the terminal have it.
function figure(value) {
  if (value === null || value === undefined) return "-";
  if (value === 0) return "0";
  if (Math.abs(value) >= 1000) return whole(value);
  if (Math.abs(value) < 1e-4) return value.toExponential(3);
  return String(Number(value.toPrecision(4)));
}

const GROUPED = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const TENTHS = new Intl.NumberFormat("en-US", { maximumFractionDigits: 1 });
const whole = (value) => GROUPED.format(value);
const percent = (share, digits = 1) => (share === null ? "-" : `${(100 * share).toFixed(digits)} %`);
const kib = (bits) => TENTHS.format(bits / 8192);
const ratio = (a, b) => (b > 0 ? `${(a / b).toFixed(2)}x` : "-");

// A table of rows of cells; a heading that starts with ">" is right-aligned, "name" cells may wrap.
function table(headings, rows, caption = null) {
  const right = headings.map((h) => h.startsWith(">"));
  const head = el("tr", {}, headings.map((h, i) => el("th", { scope: "col", class: right[i] ? "number" : null }, h.replace(/^>/, ""))));
  const body = rows.map((row) => el("tr", {}, row.map((cell, i) => el("td", { class: right[i] ? "number" : "name" }, cell))));
  const made = el("table", {}, caption ? el("caption", { class: "dim" }, caption) : null, el("thead", {}, head), el("tbody", {}, body));
  return el("div", { class: rows.length > 20 ? "scroll tall" : "scroll", tabindex: "0", role: "group", "aria-label": caption || headings.join(", ").replaceAll(">", "") }, made);
}

// A section with its heading, and its entry in the navigation.
const SECTIONS = [];
function section(id, title, ...children) {
  SECTIONS.push([id, title]);
  return el("section", { id, "aria-label": title }, el("h2", {}, title), ...children);
}

// A function that computes its value when it is first asked.
function once(make) {
  let made;
  return () => (made === undefined ? (made = make()) : made);
}

// Something to open, made when it is opened.
function later(title, make) {
  const made = el("details", {}, el("summary", {}, title));
  made.addEventListener("toggle", () => made.append(make()), { once: true });
  return made;
}

const tile = (value, label) => el("div", { class: "tile" }, el("b", {}, value), el("span", {}, label));

const AT_ONCE = 60, AFTER_MS = 150;

// A table with search, sorting and filters. columns: {title, of(row) -> value to sort by, show(row) -> text, minor}.
function browser({ rows, columns, label, filters = [], open = null, first = null }) {
  const state = { column: first, down: true, text: "", picked: filters.map(() => "") };
  const search = el("input", { type: "search", placeholder: "search", "aria-label": `search ${label}`, oninput: (e) => { state.text = e.target.value.toLowerCase(); draw(); } });
  const selects = filters.map((filter, n) => el("select", { "aria-label": filter.title, onchange: (e) => { state.picked[n] = e.target.value; draw(); } },
    el("option", { value: "" }, `${filter.title}: all`),
    [...new Set(rows.map(filter.of))].map((value) => el("option", { value }, value))));
  const count = el("span", { class: "dim", role: "status" });
  const heads = columns.map((column, n) => el("th", { scope: "col", class: [column.number ? "number" : "", column.minor ? "minor" : ""].join(" ").trim() || null },
    el("button", { type: "button", onclick: () => { state.down = state.column === n ? !state.down : !!column.number; state.column = n; draw(); } }, column.title)));
  const look = columns.map((column) => [column.number ? "number" : "name", column.minor ? "minor" : ""].join(" ").trim());
  let selected = -1;
  const texts = rows.map(() => null), cells = rows.map(() => null);
  const text = (index) => (texts[index] ??= columns.map((column) => String(column.show(rows[index]))));
  const cell = (index) => (cells[index] ??= el("tr", { "data-row": index, "aria-selected": index === selected ? "true" : "false" }, text(index).map((own, n) =>
    el("td", { class: look[n] }, n === 0 && open ? el("button", { type: "button", onclick: () => open(index) }, own) : own))));
  const body = el("tbody");
  const haystack = once(() => rows.map((_, index) => text(index).join("\n").toLowerCase()));
  let drawing = 0;

  function draw() {
    let order = rows.map((_, index) => index).filter((index) => (state.text === "" || haystack()[index].includes(state.text))
      && filters.every((filter, n) => state.picked[n] === "" || String(filter.of(rows[index])) === state.picked[n]));
    if (state.column !== null) {
      const of = columns[state.column].of;
      const key = order.map((index) => of(rows[index]));
      const at = new Map(order.map((index, n) => [index, key[n]]));
      order = order.sort((a, b) => (at.get(a) < at.get(b) ? -1 : at.get(a) > at.get(b) ? 1 : 0) * (state.down ? -1 : 1) || a - b);
    }
    heads.forEach((head, n) => head.setAttribute("aria-sort", n !== state.column ? "none" : state.down ? "descending" : "ascending"));
    const mine = (drawing += 1); // the first rows at once, the others when the page stands
    body.replaceChildren(...order.slice(0, AT_ONCE).map(cell));
    if (order.length > AT_ONCE) setTimeout(() => mine === drawing && body.append(...order.slice(AT_ONCE).map(cell)), AFTER_MS);
    count.textContent = `${order.length} of ${rows.length}`;
  }

  draw();
  const shown = el("div", { class: "scroll tall", tabindex: "0", role: "group", "aria-label": label },
    el("table", {}, el("thead", {}, el("tr", {}, heads)), body));
  const select = (index) => {
    if (cells[selected]) cells[selected].setAttribute("aria-selected", "false");
    selected = index;
    if (cells[selected]) cells[selected].setAttribute("aria-selected", "true");
  };
  return { element: el("div", {}, el("div", { class: "controls" }, search, selects, count), shown), select };
}

// The page: heading, navigation over the sections that were made, and a button for light and dark.
function assemble(title, subtitle, sections) {
  document.title = `${title}: nashc`;
  const button = el("button", { type: "button", class: "plain", onclick: () => {
    const dark = isDark();
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    redraw();
  } }, "light / dark");
  document.getElementById("page").append(
    el("header", {}, el("h1", {}, title), el("span", { class: "dim" }, subtitle), button),
    el("nav", { "aria-label": "sections" }, SECTIONS.map(([id, name]) => el("a", { href: `#${id}` }, name))),
    ...sections);
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}
