"use strict";

// The page of benchmarks: what-if sliders over the fitted model of each step, and the raw rows.
{
const read = (id) => JSON.parse(document.getElementById(id)?.textContent ?? "[]");

// Piecewise linear between [factor, multiplier] pairs in order, over the logarithm of the factor
function between(pairs, factor) {
  const at = pairs.findIndex(([known]) => known >= factor);
  if (at < 0) return pairs.at(-1)[1];
  const [high, above] = pairs[at];
  if (at === 0 || high === factor) return above;
  const [low, below] = pairs[at - 1];
  return below + (above - below) * (Math.log(factor / low) / Math.log(high / low));
}

// Milliseconds of an operator on another machine, as dlrm.bench.cost.what_if has it
function predicted(operator, exponents, cores, change) {
  const { calls_ms, compute_ms, stream_ms, latency_ms, transfer_ms } = operator.terms;
  const moved = change.bandwidth * cores ** exponents.stream;
  const random = latency_ms * change.latency / cores ** exponents.latency + transfer_ms / moved;
  const ms = calls_ms
    + compute_ms / (change.flops * cores ** exponents.compute)
    + stream_ms / moved
    + random * between(operator.cache, change.cache);
  const multiplier = (of, choice) => (Object.hasOwn(of, choice) ? of[choice] : 1);
  return ms * multiplier(operator.precision, change.precision) * multiplier(operator.rows, change.rows);
}

// The same change as a flag of dlrm bench
function flag(step, change) {
  const words = [];
  if (change.cores !== step.cores) words.push(`cores=${change.cores}`);
  for (const name of ["bandwidth", "flops", "latency", "cache"]) {
    if (change[name] !== 1) words.push(`${name}=${change[name]}x`);
  }
  for (const name of ["precision", "rows"]) {
    if (change[name]) words.push(`${name}=${change[name]}`);
  }
  return words.length ? `--what-if ${words.join(",")}` : "";
}

function made(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

const steps = read("steps");
const form = document.getElementById("what-if");
const out = document.getElementById("predicted");
const decimals = (ms) => ms.toFixed(ms < 1 ? 4 : ms < 10 ? 3 : ms < 100 ? 2 : 1);

const chosen = (input) => Number(input.dataset.choices.split(" ")[input.value]);

function said(input, value, step) {
  if (input.name === "cores") return `${value}`;
  if (input.name !== "cache" || !step.cache_bytes) return `× ${value}`;
  return `× ${value}, of ${step.cache_name}`;
}

function choose(input, value) {
  const choices = input.dataset.choices.split(" ").map(Number);
  input.value = choices.indexOf(value);
}

function tile(name, value, small) {
  const box = document.createElement("div");
  const below = made("dd", value);
  below.append(made("small", small));
  box.append(made("dt", name), below);
  return box;
}

function stack(name, operators, times, longest) {
  const line = made("div", "", { class: "stack" });
  operators.forEach((operator, at) => {
    const part = made("i", "", { title: `${operator.name}: ${decimals(times[at])} ms` });
    part.style.width = `${100 * times[at] / longest}%`;
    part.style.background = `var(--${operator.role})`;
    line.append(part);
  });
  const box = made("div", "", { class: "stacked" });
  box.append(made("span", name), line);
  return box;
}

function table(operators, now, then) {
  const body = document.createElement("tbody");
  operators.forEach((operator, at) => {
    const row = body.insertRow();
    const name = made("th", "", { scope: "row" });
    const dot = made("b", "● ");
    dot.style.color = `var(--${operator.role})`;
    name.append(dot, operator.name);
    row.append(name);
    const gain = then[at] > 0 ? `${(now[at] / then[at]).toFixed(2)}` : "–";
    for (const text of [decimals(now[at]), decimals(then[at]), gain]) {
      row.append(made("td", text, { class: "n" }));
    }
  });
  const head = document.createElement("thead");
  const heads = head.insertRow();
  ["Operator", "Measured, ms", "Predicted, ms", "Times as fast"].forEach((text, at) =>
    heads.append(made("th", text, { scope: "col", ...(at && { class: "n" }) })));
  const grid = document.createElement("table");
  grid.append(head, body);
  const box = made("div", "", { class: "scroll" });
  box.append(grid);
  return box;
}

function draw() {
  const step = steps[form.elements.step.value];
  const change = { cache: 1, precision: "", rows: "" };
  for (const input of form.querySelectorAll("input")) {
    change[input.name] = chosen(input);
    const text = said(input, change[input.name], step);
    input.parentElement.querySelector("output").textContent = text;
    input.setAttribute("aria-valuetext", text);
  }
  for (const name of ["precision", "rows"]) {
    if (form.elements[name]) change[name] = form.elements[name].value;
  }
  const now = step.operators.map((each) => Object.values(each.terms).reduce((a, b) => a + b, 0));
  const cores = change.cores / step.cores;
  const then = step.operators.map((each) => predicted(each, step.exponents, cores, change));
  const [before, after] = [now, then].map((times) => times.reduce((a, b) => a + b, 0));
  const rate = Math.round(1000 * step.batch / after).toLocaleString("en");
  const off = step.error
    ? `Predicted. On settings that it was not fitted to, the model is off by ${step.error} in the median`
      + (step.here ? `; on this step as it is, by ${step.here}.` : ".")
    : "Predicted; how far off the model is, is not known.";
  const tiles = made("dl", "", { class: "tiles" });
  tiles.append(
    tile("step", `${decimals(after)} ms`, `measured: ${decimals(before)} ms`),
    tile("times as fast", (before / after).toFixed(2), step.error ? `model's error: ${step.error}` : ""),
    tile("samples per second", rate, `measured: ${Math.round(1000 * step.batch / before).toLocaleString("en")}`),
  );
  const longest = Math.max(before, after);
  out.replaceChildren(
    tiles,
    stack("measured", step.operators, now, longest),
    stack("predicted", step.operators, then, longest),
    table(step.operators, now, then),
    made("p", off, { class: "note" }),
    made("code", flag(step, change)),
  );
  out.dataset.ms = after;
}

// A machine as it was measured: nothing changed
function reset() {
  const step = steps[form.elements.step.value];
  for (const input of form.querySelectorAll("input")) {
    choose(input, input.name === "cores" ? step.cores : 1);
  }
  for (const name of ["precision", "rows"]) {
    if (form.elements[name]) form.elements[name].value = "";
  }
  draw();
}

if (form) {
  document.getElementById("sliders").hidden = false;
  form.addEventListener("input", (event) => (event.target.name === "step" ? reset() : draw()));
  form.addEventListener("reset", (event) => { event.preventDefault(); reset(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  reset();
}

const save = document.getElementById("save");
save.hidden = false;
save.addEventListener("click", () => {
  const lines = read("rows").map((row) => `${JSON.stringify(row)}\n`);
  const link = made("a", "", { download: "bench.jsonl" });
  link.href = URL.createObjectURL(new Blob(lines, { type: "application/jsonl" }));
  link.click();
  URL.revokeObjectURL(link.href);
});
}
