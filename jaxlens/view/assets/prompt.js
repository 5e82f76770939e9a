// The page of prompts. All text goes in by textContent, all colours by classes: what tokens hold is never markup.

const MAX_COLUMNS = 128; // columns that are drawn as cells; the map above them shows every token
const MAX_CELLS = 4096; // cells of all prompts together at first
const find = (id) => document.getElementById(id);
const root = document.documentElement;
const longest = Math.max(...data.prompts.map((prompt) => prompt.tokens.length));
// Positions are those of the whole text; texts of which different parts are shown count from 0.
const offset = data.prompts.every((p) => p.start === data.prompts[0].start) ? data.prompts[0].start : 0;

function make(tag, parent, text, name) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (name) node.className = name;
  if (parent) parent.append(node);
  return node;
}

function header(row, text, scope, name) {
  const node = make("th", row, text, name);
  node.scope = scope;
  return node;
}

// ---- the grid --------------------------------------------------------------------------------

const shownOf = (prompt) => Math.max(0, Math.min(state.to, prompt.tokens.length) - state.from);

// Blocks of equal length, in which cells are as wide as there is room, within limits.
function fit() {
  const em = parseFloat(getComputedStyle(root).fontSize);
  const [label, least, most] = [3.4 * em, 4.5 * em, 6.5 * em];
  state.room = find("prompts").clientWidth; // asked for once, before anything is changed
  const room = state.room - label - 2;
  const across = state.printing ? 9 : Math.max(2, Math.floor(room / (least + 1)));
  let widest = 1;
  for (const prompt of data.prompts) {
    const shown = shownOf(prompt) || 1;
    prompt.across = Math.ceil(shown / Math.ceil(shown / across));
    widest = Math.max(widest, prompt.across);
  }
  const cell = state.printing ? least : Math.min(most, Math.max(least, Math.floor(room / widest) - 1));
  state.letters = Math.floor((cell - 0.5 * em) / (0.51 * em));
  find("prompts").style.setProperty("--cell", `${cell}px`);
}

function drawAll() {
  const held = document.activeElement.closest("tbody td") !== null;
  fit();
  data.prompts.forEach(draw);
  legend();
  if (state.at) point(state.at.prompt, state.at.layer, state.at.at, held);
}

function draw(prompt) {
  const shown = shownOf(prompt);
  if (prompt.shown !== shown || prompt.built !== prompt.across) build(prompt, shown);
  for (let place = 0; place < shown; place++) paintEnds(prompt, place, state.from + place);
  for (const cell of prompt.cells) paint(prompt, cell);
  map(prompt);
  if (shown) prompt.at.at = Math.min(Math.max(prompt.at.at, state.from), state.from + shown - 1);
  reach(prompt);
  if (prompt.chart) chart(prompt);
}

function build(prompt, shown) {
  [prompt.shown, prompt.built, prompt.cells, prompt.ends] = [shown, prompt.across, [], []];
  prompt.blocks.replaceChildren();
  if (!shown) make("p", prompt.blocks, `This text has only ${whole.format(prompt.tokens.length)} tokens.`, "faint");
  for (let start = 0; start < shown; start += prompt.across) {
    block(prompt, start, Math.min(start + prompt.across, shown));
  }
}

function block(prompt, start, stop) {
  const frame = make("div", prompt.blocks, undefined, "block");
  frame.style.setProperty("--rows", data.layers.length);
  const table = make("table", frame, undefined, "grid");
  table.setAttribute("role", "grid");
  table.style.setProperty("--columns", stop - start);
  const above = make("tr", make("thead", table));
  header(above, "next", "row");
  const body = make("tbody", table);
  for (let layer = LAST; layer >= 0; layer--) {
    const row = make("tr", body);
    header(row, data.layers[layer], "row");
    for (let place = start; place < stop; place++) {
      const cell = make("td", row);
      cell.tabIndex = -1;
      make("span", cell, " ");
      make("small", cell, " ");
      cell.layer = layer;
      cell.place = place;
      prompt.cells[layer * prompt.shown + place] = cell;
    }
  }
  const below = make("tr", make("tfoot", table));
  header(below, "token", "row");
  for (let place = start; place < stop; place++) {
    prompt.ends[place] = [header(above, "", "col"), header(below, "", "col")];
  }
}

function paintEnds(prompt, place, at) {
  const [above, below] = prompt.ends[place];
  const [next, read] = [name(prompt.following[at]), name(prompt.tokens[at])];
  above.replaceChildren();
  if (prompt.right[at]) make("span", above, "★", "star");
  above.append(next);
  above.title = prompt.right[at] ? `${next}: the model's own best token` : next;
  below.textContent = read;
  below.title = `${read} at position ${prompt.start + at}`;
  make("small", below, whole.format(prompt.start + at));
}

function paint(prompt, cell) {
  const at = state.from + cell.place;
  const best = name(raw(prompt, "top_id", cell.layer, at));
  const number = value(prompt, state.metric, cell.layer, at);
  const said = formatNumber(number, state.metric.kind);
  // Only what is new: every word that is written is measured and painted again.
  write(cell.firstChild.firstChild, best);
  write(cell.lastChild.firstChild, said);
  const look = shade(state.metric, number) + (fits(best) ? "" : " long");
  if (cell.className !== look) cell.className = look;
  const where = `${data.layers[cell.layer]}, position ${prompt.start + at}`;
  cell.setAttribute("aria-label", `${where}: ${best}; ${state.metric.title} ${said}`);
}

// To clip a word costs more than to paint it, so only words that may be too wide are clipped.
function fits(word) {
  return word.length <= state.letters && (2 * word.length <= state.letters || /^[ -~·]*$/.test(word));
}

function write(text, words) {
  if (text.data !== words) text.data = words;
}

function cellOf(prompt, layer, at) {
  const place = at - state.from;
  return place >= 0 && place < prompt.shown ? prompt.cells[layer * prompt.shown + place] : null;
}

// ---- one cell --------------------------------------------------------------------------------

// The Tab key stops at one cell of each prompt.
function reach(prompt) {
  if (prompt.reached) prompt.reached.tabIndex = -1;
  prompt.reached = cellOf(prompt, prompt.at.layer, prompt.at.at);
  if (prompt.reached) prompt.reached.tabIndex = 0;
}

function point(prompt, layer, at, focus) {
  const moved = prompt.at.at !== at;
  if (state.here) state.here.classList.remove("here"), state.here.removeAttribute("aria-selected");
  state.at = prompt.at = { prompt, layer, at };
  reach(prompt);
  const cell = (state.here = prompt.reached);
  if (cell) {
    cell.classList.add("here");
    cell.setAttribute("aria-selected", "true");
    if (focus && document.activeElement !== cell) cell.focus();
  }
  details(prompt, layer, at);
  if (prompt.chart && moved) chart(prompt);
}

function details(prompt, layer, at) {
  const panel = find("details");
  panel.replaceChildren();
  make("h2", panel, name(prompt.tokens[at]), "token");
  const where = `position ${whole.format(prompt.start + at)} · ${data.layers[layer]} · ${state.decoder}`;
  make("p", panel, where, "faint");
  const best = tableOf(panel, "best", ["best tokens", "probability"]);
  for (let k = 0; k < prompt.readings[state.decoder].top_id.depth; k++) {
    const found = share(prompt, "top_logp", layer, at, k);
    const row = line(best, named(raw(prompt, "top_id", layer, at, k), 64), [formatNumber(found, "share")]);
    row.style.setProperty("--share", `${(100 * found).toFixed(1)}%`);
  }
  const ranks = tableOf(panel, "ranks", ["", "token", "rank", "probability"]);
  for (const [what, id, ranked, logged, k] of [
    ["input", prompt.tokens[at], "rank_input", "logp_input", 0],
    ["next", prompt.following[at], "rank_next", "logp_next", 0],
    ["final", raw(prompt, "top_id", LAST, at), "rank_final", "logp_final", 0],
    ...data.follow.map((id, k) => ["followed", id, "rank_follow", "logp_follow", k]),
  ]) {
    const numbers = [formatNumber(rank(prompt, ranked, layer, at, k), "rank"), formatNumber(share(prompt, logged, layer, at, k), "share")];
    line(ranks, header(null, what, "row"), numbers).firstChild.after(named(id, 32));
  }
  const more = tableOf(panel, "more", ["", "nat"]);
  for (const [what, quantity] of [
    ["KL(last ‖ this)", "kl_final"], ["KL(this ‖ last)", "kl_to_final"],
    ["KL(input ‖ this)", "kl_input"], ["entropy", "entropy"],
  ]) {
    line(more, header(null, what, "row"), [formatNumber(nats(prompt, quantity, layer, at), "nat")]);
  }
}

function tableOf(panel, kind, heads) {
  const node = make("table", panel, undefined, kind);
  const head = make("tr", make("thead", node));
  for (const word of heads) {
    if (word) header(head, word, "col", word.startsWith("best") || word === "token" ? "" : "number");
    else make("td", head);
  }
  return make("tbody", node);
}

// A token; a table has room for the beginning of a long one, its title is the whole.
function named(id, most) {
  const node = make("td", null, short(name(id), most), "token");
  node.title = name(id);
  return node;
}

function line(body, first, numbers) {
  const row = make("tr", body);
  row.append(first);
  for (const number of numbers) make("td", row, number, "number");
  return row;
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
  const width = state.to - state.from;
  if (at < state.from) range(at, at + width);
  else if (at >= state.to) range(at - width + 1, at + 1);
  point(prompt, layer, at, true);
}

// ---- controls --------------------------------------------------------------------------------

function range(from, to) {
  state.from = Math.min(Math.max(0, from), longest - 1);
  state.to = Math.min(longest, state.from + Math.min(Math.max(1, to - from), MAX_COLUMNS));
  find("from").value = offset + state.from;
  find("to").value = offset + state.to - 1;
  find("back").disabled = state.from === 0;
  find("on").disabled = state.to === longest;
  if (state.at) {
    const { prompt, layer, at } = state.at;
    const stop = Math.min(state.to, prompt.tokens.length);
    if (state.from < stop) state.at = { prompt, layer, at: Math.min(Math.max(at, state.from), stop - 1) };
  }
  drawAll();
}

function shift(by) {
  const width = state.to - state.from;
  const from = Math.max(0, Math.min(state.from + by * width, longest - width));
  range(from, from + width);
}

function legend() {
  const bar = find("swatches");
  bar.replaceChildren();
  for (const [strong, label] of state.metric.ticks) {
    make("span", bar, label, "r" + Math.round(strong * (data.colours - 1)));
  }
  bar.setAttribute("aria-label", `colours, from most to least contrast with the page: ${state.metric.ticks.map((t) => t[1]).join(", ")}`);
  find("says").textContent = state.metric.title;
  find("which").textContent = `decoder ${state.decoder}, tokens ${offset + state.from} to ${offset + state.to - 1}`;
}

function choose(select, options, chosen, act) {
  for (const [key, title] of options) make("option", select, title).value = key;
  select.value = chosen;
  select.addEventListener("change", () => act(select.value));
}

function next(select) {
  select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
  select.dispatchEvent(new Event("change"));
}

function theme(dark) {
  root.dataset.theme = dark ? "dark" : "light";
  find("theme").textContent = dark ? "Light" : "Dark"; // what a click does
  data.prompts.forEach((prompt) => prompt.cells && map(prompt));
}

function begin(prompt) {
  const section = make("section", find("prompts"));
  const heading = make("h2", section, prompt.text);
  prompt.at = { prompt, layer: LAST, at: prompt.tokens.length - 1 };
  prompt.map = make("canvas", section);
  prompt.map.setAttribute("role", "img");
  prompt.map.title = "click to show the tokens there";
  prompt.map.addEventListener("click", (event) => {
    const box = prompt.map.getBoundingClientRect();
    const at = Math.floor(((event.clientX - box.left) / box.width) * prompt.tokens.length);
    const width = state.to - state.from;
    const from = Math.max(0, Math.min(at - Math.floor(width / 2), longest - width));
    range(from, from + width);
  });
  prompt.blocks = make("div", section);
  prompt.blocks.setAttribute("role", "group");
  prompt.blocks.setAttribute("aria-label", heading.textContent);
  for (const kind of ["mouseover", "click", "focusin"]) {
    prompt.blocks.addEventListener(kind, (event) => {
      const cell = event.target.closest("tbody td");
      if (cell && cell !== state.here) point(prompt, cell.layer, state.from + cell.place, false);
      if (cell && kind === "click") cell.focus();
    });
  }
  prompt.blocks.addEventListener("keydown", move);
  if (data.follow.length) prompt.chart = make("figure", section);
}

function listen() {
  choose(find("metric"), data.metrics.map((m) => [m.name, m.title]), state.metric.name, (key) => {
    state.metric = data.metrics.find((m) => m.name === key);
    drawAll();
  });
  choose(find("decoder"), data.decoders.map((d) => [d, d]), state.decoder, (key) => {
    state.decoder = key;
    drawAll();
  });
  const ends = () => {
    const [from, to] = ["from", "to"].map((id) => Math.round(Number(find(id).value)) - offset);
    range(from, Math.max(to, from) + 1);
  };
  find("from").addEventListener("change", ends);
  find("to").addEventListener("change", ends);
  find("back").addEventListener("click", () => shift(-1));
  find("on").addEventListener("click", () => shift(1));
  find("theme").addEventListener("click", () => theme(root.dataset.theme !== "dark"));
  find("controls").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    // Many keyboards type brackets with AltGr, which counts as Ctrl and Alt.
    const other = (event.ctrlKey || event.metaKey || event.altKey) && !event.getModifierState("AltGraph");
    if (other || event.target.matches("input, select")) return;
    if (event.key === "m") next(find("metric"));
    else if (event.key === "d") next(find("decoder"));
    else if (event.key === "[") shift(-1);
    else if (event.key === "]") shift(1);
  });
}

function follow() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  theme(dark.matches);
  dark.addEventListener("change", () => theme(dark.matches));
  for (const [event, printing] of [["beforeprint", true], ["afterprint", false]]) {
    addEventListener(event, () => {
      state.printing = printing;
      drawAll();
    });
  }
  let width = find("prompts").clientWidth;
  // In the next frame: drawing changes what is observed.
  const again = () => {
    if (width !== find("prompts").clientWidth) (width = find("prompts").clientWidth), drawAll();
  };
  new ResizeObserver(() => requestAnimationFrame(again)).observe(find("prompts"));
}

function start() {
  for (const id of ["from", "to"]) [find(id).min, find(id).max] = [offset, offset + longest - 1];
  find("count").textContent = offset ? "" : `of ${whole.format(longest)}`;
  data.prompts.forEach(begin);
  listen();
  find("controls").hidden = find("legend").hidden = find("details").hidden = false;
  follow();
  const few = Math.floor(MAX_CELLS / (data.layers.length * data.prompts.length));
  range(0, Math.min(longest, Math.max(8, Math.min(few, 64))));
  const first = data.prompts[0];
  point(first, LAST, first.at.at, false);
}

start();
