"use strict";
// The page of a comparison. All text goes in by textContent, all colours by classes: what tokens hold is never markup.

const data = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);
const root = document.documentElement;
const COLUMNS = data.equal.length;
const LAST = data.layers.length - 1;
const word = (number) => data.words[number];
const state = { metric: data.metrics[data.first], at: null };

function make(tag, parent, text, name) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (name) node.className = name;
  if (parent) parent.append(node);
  return node;
}

function header(row, scope, name) {
  const node = make("th", row, undefined, name);
  node.scope = scope;
  return node;
}

// ---- the three tables ------------------------------------------------------------------------

const best = (side, layer, at) => {
  const found = data.sides[side].best[layer][at];
  return found.length ? word(found[0][0]) : "";
};
const alike = (one, two) => (one === two ? [one] : [one || "–", two || "–"]);

const TABLES = [
  {
    node: find("difference"),
    layers: data.layers,
    title: () => state.metric.says,
    scale: () => state.metric,
    shade: "d",
    token: (at) => alike(word(data.sides[0].tokens[at]), word(data.sides[1].tokens[at])),
    next: (at) => alike(word(data.sides[0].next[at]), word(data.sides[1].next[at])),
    star: () => false,
    names: (layer, at) => alike(best(0, layer, at), best(1, layer, at)),
    place: (at) => data.sides.map((side) => side.at[at]).filter((p, i, all) => p >= 0 && all.indexOf(p) === i).join(" | "),
  },
  ...[0, 1].map((side) => ({
    node: find("sides").children[side],
    layers: data.sides[side].layers,
    title: () => `${"AB"[side]}: ${state.metric.title}`,
    scale: () => state.metric.sides[side],
    shade: "r",
    token: (at) => [word(data.sides[side].tokens[at])],
    next: (at) => [word(data.sides[side].next[at])],
    star: (at) => data.sides[side].right[at],
    names: (layer, at) => [best(side, layer, at)],
    place: (at) => (data.sides[side].at[at] < 0 ? "" : String(data.sides[side].at[at])),
  })),
];

// Blocks of equal length, in which cells are as wide as there is room, within limits.
function build(table) {
  const blocks = table.node.querySelector(".blocks");
  blocks.replaceChildren();
  const em = parseFloat(getComputedStyle(root).fontSize);
  const label = Math.max(3.4, 0.62 * Math.max(...table.layers.map((name) => name.length)) + 0.6) * em;
  const room = blocks.clientWidth - label - 2;
  const across = Math.max(2, Math.floor(room / (4.5 * em + 1)));
  const wide = Math.ceil(COLUMNS / Math.ceil(COLUMNS / across));
  const cell = Math.min(6.5 * em, Math.max(4.5 * em, Math.floor(room / wide) - 1));
  blocks.style.setProperty("--cell", `${cell}px`);
  blocks.style.setProperty("--label", `${label}px`);
  table.cells = [];
  for (let start = 0; start < COLUMNS; start += wide) block(table, blocks, start, Math.min(start + wide, COLUMNS));
}

function block(table, blocks, start, stop) {
  const frame = make("div", blocks, undefined, "block");
  frame.style.setProperty("--rows", data.layers.length);
  const grid = make("table", frame, undefined, "grid");
  grid.setAttribute("role", "grid");
  grid.style.setProperty("--columns", stop - start);
  const above = make("tr", make("thead", grid));
  header(above, "row").textContent = "next";
  const body = make("tbody", grid);
  const below = make("tr", make("tfoot", grid));
  header(below, "row").textContent = "token";
  for (let at = start; at < stop; at++) {
    const [top, bottom] = [header(above, "col"), header(below, "col")];
    if (table.star(at)) make("span", top, "★", "star");
    ends(top, table.next(at));
    ends(bottom, table.token(at));
    make("small", bottom, table.place(at));
  }
  for (let layer = LAST; layer >= 0; layer--) {
    const row = make("tr", body);
    header(row, "row").textContent = table.layers[layer];
    for (let at = start; at < stop; at++) {
      const cell = make("td", row);
      Object.assign(cell, { layer, at, tabIndex: -1 });
      table.cells[layer * COLUMNS + at] = cell;
    }
  }
}

function ends(node, words) {
  if (words.length === 1) node.append(words[0]);
  else for (const one of words) make("span", node, one);
  node.title = words.join(" | ");
}

function paint(table) {
  const scale = table.scale();
  table.node.querySelector("h2").textContent = table.title();
  const bar = table.node.querySelector(".swatches");
  bar.replaceChildren();
  for (const [step, label] of scale.ticks) make("span", bar, label, table.shade + step);
  bar.setAttribute("aria-label", `colours: ${scale.ticks.map((tick) => tick[1]).join(", ")}`);
  for (const cell of table.cells) {
    const { layer, at } = cell;
    const step = scale.steps[layer][at];
    const names = table.names(layer, at);
    const said = scale.words[layer][at];
    cell.replaceChildren();
    for (const name of names) make("span", cell, name || " ");
    make("small", cell, said);
    cell.className = step < 0 ? "none" : table.shade + step;
    cell.setAttribute("aria-label", `${table.layers[layer]}, position ${table.place(at)}: ${names.join(" | ")}; ${table.title()} ${said}`);
  }
}

// ---- one cell --------------------------------------------------------------------------------

function point(table, layer, at, focus) {
  for (const cell of document.querySelectorAll("td.here")) cell.classList.remove("here"), (cell.tabIndex = -1);
  state.at = { table, layer, at };
  for (const each of TABLES) each.cells[layer * COLUMNS + at].classList.add("here");
  const cell = table.cells[layer * COLUMNS + at];
  cell.tabIndex = 0;
  if (focus) cell.focus();
  details(layer, at);
}

function details(layer, at) {
  const panel = find("details");
  panel.replaceChildren();
  make("h2", panel, TABLES[0].token(at).join(" | "), "token");
  make("p", panel, `position ${TABLES[0].place(at)} · ${data.layers[layer]}`, "faint");
  data.sides.forEach((side, number) => {
    if (!side.best[layer][at].length) return;
    make("p", panel, "AB"[number], "side");
    const body = tableOf(panel, "best", ["best tokens", "probability"]);
    for (const [name, share] of side.best[layer][at]) {
      const row = make("tr", body);
      make("td", row, word(name), "token").title = word(name);
      make("td", row, share, "number");
      row.style.setProperty("--share", `${(100 * Number(share)).toFixed(1)}%`);
    }
  });
  const both = tableOf(panel, "both", ["", "A", "B", "difference"]);
  for (const metric of data.metrics) {
    const row = make("tr", both);
    header(row, "row").textContent = metric.title;
    for (const one of [...metric.sides, metric]) make("td", row, one.words[layer][at], "number");
  }
}

function tableOf(panel, kind, heads) {
  const node = make("table", panel, undefined, kind);
  const head = make("tr", make("thead", node));
  for (const text of heads) header(head, "col").textContent = text;
  return make("tbody", node);
}

function move(event) {
  if (!state.at || event.ctrlKey || event.metaKey || event.altKey) return;
  const { table } = state.at;
  let { layer, at } = state.at;
  if (event.key === "ArrowUp") layer = Math.min(layer + 1, LAST);
  else if (event.key === "ArrowDown") layer = Math.max(layer - 1, 0);
  else if (event.key === "ArrowLeft") at = Math.max(at - 1, 0);
  else if (event.key === "ArrowRight") at = Math.min(at + 1, COLUMNS - 1);
  else return;
  event.preventDefault();
  point(table, layer, at, true);
}

// ---- controls --------------------------------------------------------------------------------

function choose(place) {
  state.metric = data.metrics[place];
  find("metric").selectedIndex = place;
  TABLES.forEach(paint);
  if (state.at) point(state.at.table, state.at.layer, state.at.at, false);
}

function theme(dark) {
  root.dataset.theme = dark ? "dark" : "light";
  find("theme").textContent = dark ? "Light" : "Dark"; // what a click does
}

function draw() {
  TABLES.forEach(build);
  choose(data.metrics.indexOf(state.metric));
}

function start() {
  for (const metric of data.metrics) make("option", find("metric"), metric.title).value = metric.name;
  find("controls").hidden = find("tables").hidden = find("details").hidden = false;
  find("metric").addEventListener("change", () => choose(find("metric").selectedIndex));
  find("theme").addEventListener("click", () => theme(root.dataset.theme !== "dark"));
  find("controls").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select")) return;
    if (event.key === "m") choose((data.metrics.indexOf(state.metric) + 1) % data.metrics.length);
  });
  for (const table of TABLES) {
    for (const kind of ["mouseover", "click", "focusin"]) {
      table.node.addEventListener(kind, (event) => {
        const cell = event.target.closest("tbody td");
        const here = cell && state.at && state.at.table === table && state.at.layer === cell.layer && state.at.at === cell.at;
        if (cell && !here) point(table, cell.layer, cell.at, kind === "click");
      });
    }
    table.node.addEventListener("keydown", move);
  }
  const dark = matchMedia("(prefers-color-scheme: dark)");
  theme(dark.matches);
  dark.addEventListener("change", () => theme(dark.matches));
  draw();
  let first = data.equal.lastIndexOf(1);
  if (first < 0) first = 0;
  point(TABLES[0], LAST, first, false);
  let width = find("tables").clientWidth;
  // In the next frame: drawing changes what is observed.
  const again = () => {
    if (width !== find("tables").clientWidth) (width = find("tables").clientWidth), draw();
  };
  new ResizeObserver(() => requestAnimationFrame(again)).observe(find("tables"));
}

start();
