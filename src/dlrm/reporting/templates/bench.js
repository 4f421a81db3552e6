"use strict";

// The page of benchmarks: what-if sliders over the fitted model of each step, and the raw rows
{
const read = (id) => JSON.parse(document.getElementById(id)?.textContent ?? "[]");
const steps = read("steps");
const form = document.getElementById("what-if");
const out = document.getElementById("predicted");

// Piecewise linear between [factor, multiplier] pairs in order, over the logarithm of the factor
function between(pairs, factor) {
  const at = pairs.findIndex(([known]) => known >= factor);
  if (at < 0) return pairs.at(-1)[1];
  const [high, above] = pairs[at];
  if (at === 0 || high === factor) return above;
  const [low, below] = pairs[at - 1];
  return below + (above - below) * (Math.log(factor / low) / Math.log(high / low));
}

// Milliseconds of an operator on another machine: each term times powers of what changes, which
// dlrm.planning.what_if has put into the page
function predicted(operator, { powers, cached }, change) {
  const ms = sum(Object.entries(powers).map(([term, names]) => Object.entries(names).reduce(
    (part, [name, power]) => part * change[name] ** power,
    operator.terms[term] * (cached.includes(term) ? between(operator.cache, change.cache) : 1))));
  const multiplier = (known, choice) => (Object.hasOwn(known, choice) ? known[choice] : 1);
  return ms * multiplier(operator.precision, change.precision)
    * multiplier(operator.rows, change.rows);
}

// The same change as a flag of dlrm bench
function flag(step, change) {
  const words = change.cores === step.cores ? [] : [`cores=${change.cores}`];
  for (const name of ["bandwidth", "flops", "latency", "cache"]) {
    if (change[name] !== 1) words.push(`${name}=${change[name]}x`);
  }
  for (const name of ["precision", "rows"]) {
    if (change[name]) words.push(`${name}=${change[name]}`);
  }
  return words.length ? `--what-if ${words.join(",")}` : "";
}

const sum = (times) => times.reduce((a, b) => a + b, 0);
const digits = (ms) => ms.toFixed(ms < 1 ? 4 : ms < 10 ? 3 : ms < 100 ? 2 : 1);
const put = (name, text) => { out.querySelector(`[data-put="${name}"]`).textContent = text; };
const choices = (input) => input.dataset.choices.split(" ").map(Number);

function stack(name, operators, times, longest) {
  out.querySelector(`[data-stack="${name}"]`).replaceChildren(...operators.map((operator, at) => {
    const part = document.createElement("i");
    part.title = `${operator.name}: ${digits(times[at])} ms`;
    part.style.width = `${100 * times[at] / longest}%`;
    part.style.background = `var(--${operator.role})`;
    return part;
  }));
}

function row(operator, now, then) {
  const copy = document.getElementById("operator").content.cloneNode(true);
  copy.querySelector("b").style.color = `var(--${operator.role})`;
  copy.querySelector("span").textContent = operator.name;
  const texts = [digits(now), digits(then), then > 0 ? (now / then).toFixed(2) : "–"];
  copy.querySelectorAll("td").forEach((cell, at) => { cell.textContent = texts[at]; });
  return copy;
}

function draw() {
  const step = steps[form.elements.step.value];
  const change = { cache: 1, precision: "", rows: "" };
  for (const input of form.querySelectorAll("input")) {
    const value = choices(input)[input.value];
    const of = input.name === "cache" && step.cache ? `, of ${step.cache}` : "";
    const text = input.name === "cores" ? `${value}` : `× ${value}${of}`;
    change[input.name] = value;
    input.parentElement.querySelector("output").textContent = text;
    input.setAttribute("aria-valuetext", text);
  }
  for (const name of ["precision", "rows"]) change[name] = form.elements[name]?.value ?? "";
  const now = step.operators.map((operator) => sum(Object.values(operator.terms)));
  const then = step.operators.map(
    (operator) => predicted(operator, step, { ...change, cores: change.cores / step.cores }));
  const [before, after] = [sum(now), sum(then)];
  const rate = (ms) => Math.round(1000 * step.batch / ms).toLocaleString("en");
  put("ms", `${digits(after)} ms`);
  put("measured-ms", `measured: ${digits(before)} ms`);
  put("gain", (before / after).toFixed(2));
  put("rate", rate(after));
  put("measured-rate", `measured: ${rate(before)}`);
  put("error", step.error);
  put("note", step.note);
  put("flag", flag(step, change));
  stack("measured", step.operators, now, Math.max(before, after));
  stack("predicted", step.operators, then, Math.max(before, after));
  out.querySelector("tbody").replaceChildren(
    ...step.operators.map((operator, at) => row(operator, now[at], then[at])));
  out.dataset.ms = after;
}

// A machine as it was measured: nothing changed
function reset() {
  for (const input of form.querySelectorAll("input")) {
    const now = input.name === "cores" ? steps[form.elements.step.value].cores : 1;
    input.value = choices(input).indexOf(now);
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
  const lines = read("rows").map((line) => `${JSON.stringify(line)}\n`);
  const link = document.createElement("a");
  link.download = "bench.jsonl";
  link.href = URL.createObjectURL(new Blob(lines, { type: "application/jsonl" }));
  link.click();
  URL.revokeObjectURL(link.href);
});
}
