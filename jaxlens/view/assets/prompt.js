"use strict";
// The page of a prompt. All text goes in by textContent, all colours by classes: what tokens hold is never markup.

const data = JSON.parse(document.getElementById("data").textContent);
const MOST_COLUMNS = 128; // columns that are drawn as cells; the map above them shows every token
const MISSING = 65535;
const LAST = data.layers.length - 1;
const find = (id) => document.getElementById(id);
const state = { metric: data.metrics[0], decoder: data.decoders[0], from: 0, to: 0, at: null };
const root = document.documentElement;

function make(tag, parent, text, name) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (name) node.className = name;
  if (parent) parent.append(node);
  return node;
}

// ---- numbers ---------------------------------------------------------------------------------

function unpack(field) {
  const bytes = Uint8Array.from(atob(field.base64), (c) => c.charCodeAt(0));
  const values = field.type === "u2" ? new Uint16Array(bytes.buffer) : new Uint32Array(bytes.buffer);
  return { values, depth: field.shape[2] || 1, wide: field.shape[1] };
}

for (const prompt of data.prompts) {
  for (const decoder of data.decoders) {
    for (const [name, field] of Object.entries(prompt.readings[decoder])) {
      prompt.readings[decoder][name] = unpack(field);
    }
  }
}

function raw(prompt, name, layer, at, k = 0) {
  const field = prompt.readings[state.decoder][name];
  return field.values[(layer * field.wide + at) * field.depth + k];
}

function rank(prompt, name, layer, at, k = 0) {
  return raw(prompt, name, layer, at, k) || NaN;
}

function nats(prompt, name, layer, at, k = 0) {
  const value = raw(prompt, name, layer, at, k);
  return value === MISSING ? NaN : value / 1000;
}

// Log-probabilities are stored without their sign.
const share = (prompt, name, layer, at, k = 0) => Math.exp(-nats(prompt, name, layer, at, k));

function value(prompt, metric, layer, at) {
  const of = { rank, share, nat: nats }[metric.kind];
  return of(prompt, metric.quantity, layer, at, metric.place);
}

function strength(metric, number) {
  const clip = (x) => Math.min(Math.max(x, 0), 1);
  if (metric.kind === "share") return clip(number);
  if (metric.kind === "rank") return 1 - clip(Math.log(number) / Math.log(metric.cap));
  return 1 - Math.sqrt(clip(number / metric.cap));
}

function spelled(number, kind) {
  if (Number.isNaN(number)) return "–";
  if (kind === "rank") return number.toLocaleString("en");
  if (kind === "nat") return number.toFixed(2);
  return number >= 0.0005 || number === 0 ? number.toFixed(3) : number.toExponential(0);
}

function shade(metric, number) {
  return Number.isNaN(number) ? "none" : "r" + Math.round(strength(metric, number) * (data.colours - 1));
}

const name = (id) => (id < 0 ? "" : data.names[id]);

// ---- the grid --------------------------------------------------------------------------------

function columns(count) {
  const most = state.printing ? 9 : Math.max(3, Math.floor((find("prompts").clientWidth - 62) / 75));
  return Math.ceil(count / Math.ceil(count / most)); // blocks of equal length
}

function draw(prompt) {
  const stop = Math.min(state.to, prompt.tokens.length);
  prompt.cells = new Map();
  prompt.blocks.replaceChildren();
  const wide = columns(Math.max(stop - state.from, 1));
  for (let start = state.from; start < stop; start += wide) {
    block(prompt, start, Math.min(start + wide, stop));
  }
  map(prompt);
}

function block(prompt, start, stop) {
  const table = make("table", prompt.blocks);
  table.setAttribute("role", "grid");
  const above = make("tr", make("thead", table));
  make("th", above, "next").scope = "row";
  for (let at = start; at < stop; at++) {
    const cell = make("td", above, "");
    if (prompt.right[at]) make("span", cell, "★", "star").title = "the model's best token is the next one";
    cell.append(name(prompt.following[at]));
  }
  const body = make("tbody", table);
  for (let layer = LAST; layer >= 0; layer--) {
    const row = make("tr", body);
    make("th", row, data.layers[layer]).scope = "row";
    for (let at = start; at < stop; at++) {
      const cell = make("td", row);
      cell.tabIndex = -1;
      make("span", cell);
      make("small", cell);
      cell.dataset.layer = layer;
      cell.dataset.at = at;
      prompt.cells.set(layer * prompt.tokens.length + at, cell);
      paint(prompt, cell, layer, at);
    }
  }
  const below = make("tr", make("tfoot", table));
  make("th", below, "token").scope = "row";
  for (let at = start; at < stop; at++) make("td", below, name(prompt.tokens[at])).title = "position " + at;
}

function paint(prompt, cell, layer, at) {
  const number = value(prompt, state.metric, layer, at);
  cell.firstChild.textContent = name(raw(prompt, "top_id", layer, at));
  cell.lastChild.textContent = spelled(number, state.metric.kind);
  cell.className = shade(state.metric, number);
}

function repaint() {
  for (const prompt of data.prompts) {
    for (const cell of prompt.cells.values()) {
      paint(prompt, cell, Number(cell.dataset.layer), Number(cell.dataset.at));
    }
    map(prompt);
  }
  legend();
  if (state.at) point(state.at.prompt, state.at.layer, state.at.at, false);
}

// ---- the map of all tokens -------------------------------------------------------------------

function map(prompt) {
  const canvas = prompt.map;
  const count = prompt.tokens.length;
  canvas.hidden = state.from === 0 && state.to >= count;
  if (canvas.hidden) return;
  canvas.width = count;
  canvas.height = data.layers.length * 3 + 2;
  const pen = canvas.getContext("2d");
  const ramp = root.dataset.theme === "dark" ? data.dark : data.light;
  for (let layer = 0; layer <= LAST; layer++) {
    for (let at = 0; at < count; at++) {
      const number = value(prompt, state.metric, layer, at);
      pen.fillStyle = Number.isNaN(number)
        ? "#888888"
        : ramp[Math.round(strength(state.metric, number) * (data.colours - 1))];
      pen.fillRect(at, (LAST - layer) * 3, 1, 3);
    }
  }
  pen.fillStyle = "#d55e00";
  pen.fillRect(state.from, canvas.height - 2, Math.min(state.to, count) - state.from, 2);
}

// ---- one cell --------------------------------------------------------------------------------

function point(prompt, layer, at, focus) {
  if (state.at) {
    const old = state.at.prompt.cells.get(state.at.layer * state.at.prompt.tokens.length + state.at.at);
    if (old) old.classList.remove("here"), (old.tabIndex = -1);
  }
  state.at = { prompt, layer, at };
  const cell = prompt.cells.get(layer * prompt.tokens.length + at);
  if (cell) {
    cell.classList.add("here");
    cell.tabIndex = 0;
    if (focus) cell.focus();
  }
  details(prompt, layer, at);
  if (prompt.chart) chart(prompt, at);
}

function details(prompt, layer, at) {
  const panel = find("details");
  panel.replaceChildren();
  make("h3", panel, `${name(prompt.tokens[at])} at ${at}, ${data.layers[layer]}`);
  const best = make("table", panel);
  for (let k = 0; k < prompt.readings[state.decoder].top_id.depth; k++) {
    const row = make("tr", best);
    make("td", row, name(raw(prompt, "top_id", layer, at, k)));
    make("td", row, spelled(share(prompt, "top_logp", layer, at, k), "share"), "number");
  }
  const ranks = make("table", panel);
  const head = make("tr", ranks);
  for (const word of ["", "token", "rank", "probability"]) make("th", head, word);
  const final = raw(prompt, "top_id", LAST, at);
  const followed = data.follow.map((id, k) => [id, "rank_follow", "logp_follow", k, "followed"]);
  for (const [id, ranked, logged, k, what] of [
    [prompt.tokens[at], "rank_input", "logp_input", 0, "input"],
    [prompt.following[at], "rank_next", "logp_next", 0, "next"],
    [final, "rank_final", "logp_final", 0, "final"],
    ...followed,
  ]) {
    const row = make("tr", ranks);
    make("th", row, what);
    make("td", row, name(id));
    make("td", row, spelled(rank(prompt, ranked, layer, at, k), "rank"), "number");
    make("td", row, spelled(share(prompt, logged, layer, at, k), "share"), "number");
  }
  const more = make("table", panel);
  for (const [what, quantity] of [
    ["KL(last ‖ this)", "kl_final"], ["KL(this ‖ last)", "kl_to_final"],
    ["KL(input ‖ this)", "kl_input"], ["entropy", "entropy"],
  ]) {
    const row = make("tr", more);
    make("th", row, what);
    make("td", row, spelled(nats(prompt, quantity, layer, at), "nat") + " nat", "number");
  }
}

function move(event) {
  if (!state.at || event.ctrlKey || event.metaKey || event.altKey) return;
  const { prompt } = state.at;
  let { layer, at } = state.at;
  const end = prompt.tokens.length - 1;
  if (event.key === "ArrowUp") layer = Math.min(layer + 1, LAST);
  else if (event.key === "ArrowDown") layer = Math.max(layer - 1, 0);
  else if (event.key === "ArrowLeft") at = Math.max(at - 1, 0);
  else if (event.key === "ArrowRight") at = Math.min(at + 1, end);
  else if (event.key === "Home") at = 0;
  else if (event.key === "End") at = end;
  else return;
  event.preventDefault();
  if (at < state.from || at >= state.to) range(at - (at < state.from ? 0 : state.to - state.from - 1));
  point(prompt, layer, at, true);
}

// ---- followed tokens -------------------------------------------------------------------------

const SVG = "http://www.w3.org/2000/svg";
function draws(parent, tag, attributes, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, found] of Object.entries(attributes)) node.setAttribute(key, found);
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

function chart(prompt, at) {
  const [width, height, left, right, top, bottom] = [640, 240, 60, 130, 12, 34];
  const figure = prompt.chart;
  figure.replaceChildren();
  const svg = draws(figure, "svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img" });
  const most = Math.log(data.vocabulary);
  const x = (layer) => left + (layer / LAST) * (width - left - right);
  const y = (found) => top + (Math.log(found) / most) * (height - top - bottom);
  for (let tick = 1; tick <= data.vocabulary; tick *= 10) {
    draws(svg, "line", { x1: left, x2: width - right, y1: y(tick), y2: y(tick), class: "grid" });
    draws(svg, "text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, tick.toLocaleString("en"));
  }
  const every = Math.ceil(data.layers.length / 13);
  data.layers.forEach((label, layer) => {
    if (layer % every === 0) draws(svg, "text", { x: x(layer), y: height - 12, "text-anchor": "middle" }, label);
  });
  let free = 0;
  data.follow.forEach((id, k) => {
    const places = data.layers.map((_, layer) => [x(layer), y(rank(prompt, "rank_follow", layer, at, k))]);
    const colour = data.lines[k % data.lines.length];
    draws(svg, "polyline", { points: places.join(" "), fill: "none", stroke: colour, "stroke-width": 2 });
    for (const [cx, cy] of places) draws(svg, "circle", { cx, cy, r: 3, fill: colour });
    free = Math.max(free + 14, places[LAST][1]);
    draws(svg, "text", { x: width - right + 8, y: free + 4 }, name(id));
    draws(svg, "circle", { cx: width - right + 3, cy: free, r: 3, fill: colour });
  });
  make("figcaption", figure,
    `Rank of the followed tokens by layer after position ${at}, ${name(prompt.tokens[at])}; rank 1 on top.`);
}

// ---- controls --------------------------------------------------------------------------------

const longest = Math.max(...data.prompts.map((prompt) => prompt.tokens.length));

function range(from, to) {
  const width = (to ?? from + state.to - state.from) - from;
  state.from = Math.min(Math.max(0, from), longest - 1);
  state.to = Math.min(longest, state.from + Math.min(Math.max(1, width), MOST_COLUMNS));
  find("from").value = state.from;
  find("to").value = state.to - 1;
  find("count").textContent = `of ${longest}`;
  data.prompts.forEach(draw);
}

function shift(by) {
  const width = state.to - state.from;
  range(Math.max(0, Math.min(state.from + by * width, longest - width)));
}

function legend() {
  const bar = find("legend");
  bar.replaceChildren();
  for (const [strong, label] of state.metric.ticks) {
    make("span", bar, label, "r" + Math.round(strong * (data.colours - 1)));
  }
  bar.setAttribute("aria-label", `${state.metric.title}: ${state.metric.ticks.map((t) => t[1]).join(", ")}`);
}

function choose(select, options, act) {
  for (const [key, title] of options) make("option", select, title).value = key;
  select.addEventListener("change", () => act(select.value));
}

function next(select) {
  select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
  select.dispatchEvent(new Event("change"));
}

function theme(dark) {
  root.dataset.theme = dark ? "dark" : "light";
  data.prompts.forEach((prompt) => prompt.cells && map(prompt));
}

function start() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  theme(dark.matches);
  dark.addEventListener("change", () => theme(dark.matches));
  for (const prompt of data.prompts) {
    const section = make("section", find("prompts"));
    make("h2", section, prompt.text);
    prompt.map = make("canvas", section);
    prompt.map.addEventListener("click", (event) => {
      const box = prompt.map.getBoundingClientRect();
      const at = Math.floor(((event.clientX - box.left) / box.width) * prompt.tokens.length);
      const width = state.to - state.from;
      range(Math.max(0, Math.min(at - Math.floor(width / 2), longest - width)));
    });
    prompt.blocks = make("div", section);
    const found = (event) => event.target.closest("tbody td");
    for (const kind of ["mouseover", "click", "focusin"]) {
      prompt.blocks.addEventListener(kind, (event) => {
        const cell = found(event);
        if (cell) point(prompt, Number(cell.dataset.layer), Number(cell.dataset.at), kind === "click");
      });
    }
    prompt.blocks.addEventListener("keydown", move);
    if (data.follow.length) prompt.chart = make("figure", section);
  }
  choose(find("metric"), data.metrics.map((m) => [m.name, m.title]), (key) => {
    state.metric = data.metrics.find((m) => m.name === key);
    repaint();
  });
  choose(find("decoder"), data.decoders.map((d) => [d, d]), (key) => {
    state.decoder = key;
    repaint();
  });
  const ends = () => {
    const [from, to] = [Number(find("from").value), Number(find("to").value) + 1];
    if (Number.isInteger(from) && Number.isInteger(to)) range(from, Math.max(to, from + 1));
  };
  find("from").addEventListener("change", ends);
  find("to").addEventListener("change", ends);
  find("back").addEventListener("click", () => shift(-1));
  find("on").addEventListener("click", () => shift(1));
  find("theme").addEventListener("click", () => theme(root.dataset.theme !== "dark"));
  find("controls").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "m") next(find("metric"));
    else if (event.key === "d") next(find("decoder"));
    else if (event.key === "[") shift(-1);
    else if (event.key === "]") shift(1);
  });
  let before = "light";
  addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    state.printing = true;
    theme(false);
    data.prompts.forEach(draw);
  });
  addEventListener("afterprint", () => {
    state.printing = false;
    theme(before === "dark");
    data.prompts.forEach(draw);
  });
  let width = 0;
  // In the next frame: drawing changes what is observed.
  const fit = () => {
    if (width !== columns(MOST_COLUMNS)) (width = columns(MOST_COLUMNS)), data.prompts.forEach(draw);
  };
  new ResizeObserver(() => requestAnimationFrame(fit)).observe(find("prompts"));
  find("controls").hidden = false;
  legend();
  range(0, Math.min(longest, 64));
  const first = data.prompts[0];
  point(first, LAST, Math.min(state.to, first.tokens.length) - 1, false);
}

start();
