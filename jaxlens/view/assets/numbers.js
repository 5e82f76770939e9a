"use strict";
// The numbers of the page, and how they are spelled and coloured.

const data = JSON.parse(document.getElementById("data").textContent);
const MISSING = 65535; // no number
const MOST = 65.534; // nats: this many or more
const LAST = data.layers.length - 1;
const first = data.metrics.find((metric) => metric.name === data.metric);
const state = { metric: first, decoder: data.decoders[0], from: 0, to: 0, at: null };

function unpack(field) {
  const text = atob(field.base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
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

const KINDS = { rank, share, nat: nats };
function value(prompt, metric, layer, at) {
  return KINDS[metric.kind](prompt, metric.quantity, layer, at, metric.place);
}

function strength(metric, number) {
  const clip = (x) => Math.min(Math.max(x, 0), 1);
  if (metric.kind === "share") return clip(number);
  if (metric.kind === "rank") return 1 - clip(Math.log(number) / Math.log(metric.cap));
  return 1 - Math.sqrt(clip(number / metric.cap));
}

const whole = new Intl.NumberFormat("en");
function formatNumber(number, kind) {
  if (Number.isNaN(number)) return "–";
  if (kind === "rank") return whole.format(number);
  if (kind === "nat") return (number >= MOST ? "≥" : "") + number.toFixed(2);
  if (number >= 0.0005 || number === 0) return number.toFixed(3);
  return (number <= Math.exp(-MOST) ? "≤" : "") + number.toExponential(0);
}

// A step of the ramp, or -1 where there is no number.
function step(metric, number) {
  return Number.isNaN(number) ? -1 : Math.round(strength(metric, number) * (data.colours - 1));
}

function shade(metric, number) {
  const place = step(metric, number);
  return place < 0 ? "none" : "r" + place;
}

const name = (id) => (id < 0 ? "" : data.names[id]);
const short = (text, most) => (Array.from(text).length > most ? Array.from(text).slice(0, most - 1).join("") + "…" : text);
