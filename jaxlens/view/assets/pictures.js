// The map of all tokens, and the lines of the followed ones.

function pixel(colour) {
  const code = parseInt(colour.slice(1), 16);
  return (0xff000000 | ((code & 0xff) << 16) | (code & 0xff00) | (code >> 16)) >>> 0;
}

// Three lines of pixels a layer; kept until metric, decoder or theme change.
function image(prompt) {
  const key = `${state.metric.name} ${state.decoder} ${document.documentElement.dataset.theme}`;
  if (prompt.image && prompt.image.key === key) return prompt.image;
  const count = prompt.tokens.length;
  const found = new ImageData(count, data.layers.length * 3);
  const pixels = new Uint32Array(found.data.buffer);
  const dark = document.documentElement.dataset.theme === "dark";
  const ramp = (dark ? data.dark : data.light).map(pixel);
  const none = pixel("#888888");
  const { metric } = state;
  const of = KINDS[metric.kind];
  for (let layer = 0; layer <= LAST; layer++) {
    const line = (LAST - layer) * 3 * count;
    for (let at = 0; at < count; at++) {
      const place = step(metric, of(prompt, metric.quantity, layer, at, metric.place));
      pixels[line + at] = place < 0 ? none : ramp[place];
    }
    pixels.copyWithin(line + count, line, line + count);
    pixels.copyWithin(line + 2 * count, line, line + count);
  }
  found.key = key;
  return (prompt.image = found);
}

function map(prompt) {
  const canvas = prompt.map;
  const count = prompt.tokens.length;
  canvas.hidden = state.from === 0 && state.to >= count;
  if (canvas.hidden) return;
  const found = image(prompt);
  if (canvas.width !== count) [canvas.width, canvas.height] = [count, found.height + 2];
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, count, canvas.height);
  pen.putImageData(found, 0, 0);
  pen.fillStyle = "#d55e00";
  pen.fillRect(state.from, found.height, Math.min(state.to, count) - state.from, 2);
  canvas.classList.toggle("dense", count > state.room);
  canvas.setAttribute("aria-label", `Map of all ${whole.format(count)} tokens; the ones that are shown are underlined.`);
}

const SVG = "http://www.w3.org/2000/svg";
function draws(parent, tag, attributes, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, found] of Object.entries(attributes)) node.setAttribute(key, found);
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

function axes(svg, { x, y, left, end, height }) {
  for (let tick = 1; tick <= data.vocabulary; tick *= 10) {
    draws(svg, "line", { x1: left, x2: end, y1: y(tick), y2: y(tick), class: "rule" });
    draws(svg, "text", { x: left - 8, y: y(tick) + 4, "text-anchor": "end" }, whole.format(tick));
  }
  const every = Math.ceil((data.layers.length * 44) / (end - left));
  data.layers.forEach((label, layer) => {
    const clear = layer % every === 0 && (layer === LAST || LAST - layer >= every);
    if (clear || layer === LAST) draws(svg, "text", { x: x(layer), y: height - 10, "text-anchor": "middle" }, label);
  });
}

// Labels stand at the ends of their lines, moved apart where they would touch.
function labels(svg, lines, end, height) {
  lines.sort((a, b) => a.last - b.last);
  let free = -Infinity;
  for (const line of lines) free = line.at = Math.max(free + 15, line.last);
  let most = Math.max(height - 34, 15 * lines.length);
  for (const line of lines.reverse()) most = (line.at = Math.min(line.at, most)) - 15;
  for (const { colour, id, at, last } of lines) {
    draws(svg, "path", { d: `M${end + 4} ${last}L${end + 12} ${at}`, stroke: colour, fill: "none" });
    const label = draws(svg, "text", { x: end + 16, y: at + 4 }, short(name(id), 14));
    draws(label, "title", {}, name(id));
  }
}

function chart(prompt) {
  const at = prompt.at.at;
  const figure = prompt.chart;
  const width = Math.max(300, Math.min(680, state.room));
  const height = Math.max(250, 15 * data.follow.length + 60);
  const [left, end] = [56, width - 130];
  const most = Math.log(Math.max(data.vocabulary, 2));
  const x = (layer) => left + (layer / LAST) * (end - left);
  const y = (found) => 12 + (Math.log(found) / most) * (height - 50);
  figure.replaceChildren();
  const caption = `Ranks of the followed tokens after “${name(prompt.tokens[at])}” at position ${prompt.start + at}, by layer; ` +
    `decoder ${state.decoder}. Rank 1 is on top.`;
  const svg = draws(figure, "svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": caption });
  axes(svg, { x, y, left, end, height });
  const lines = data.follow.map((id, k) => {
    const places = data.layers.map((_, layer) => [x(layer), y(rank(prompt, "rank_follow", layer, at, k))]);
    const colour = data.lines[k % data.lines.length];
    const dashes = k < data.lines.length ? "none" : "6 4";
    draws(svg, "polyline", { points: places.join(" "), fill: "none", stroke: colour, "stroke-width": 2, "stroke-dasharray": dashes });
    for (const [cx, cy] of places) draws(svg, "circle", { cx, cy, r: 3, fill: colour });
    return { id, colour, last: places[LAST][1] };
  });
  labels(svg, lines, end, height);
  make("figcaption", figure, caption);
}
