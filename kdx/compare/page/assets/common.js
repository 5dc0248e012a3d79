// Shared by the other scripts: the data of the page, elements made of text (never of markup), and state kept over a reload.
const page = JSON.parse(document.getElementById("page-data").textContent);
const byId = (id) => document.getElementById(id);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const keptAs = "kdx-page:" + location.pathname;
let kept = {};
try { kept = JSON.parse(sessionStorage.getItem(keptAs)) || {}; } catch { /* without storage, no state is kept */ }
function keep(name, value) {
  kept[name] = value;
  try { sessionStorage.setItem(keptAs, JSON.stringify(kept)); } catch { /* without storage, no state is kept */ }
}

for (const run of page.runs) run.facts = run.facts.map(([label, i]) => [label, page.texts[i]]);
const runs = new Map(page.runs.map((run) => [run.id, run]));
const place = new Map(page.names.map((name, i) => [name, i]));
const groupOf = new Map(page.groups.flatMap((group) => group.runs.map((id) => [id, group])));

function setting(run, path) {
  if (Object.hasOwn(run.differing, path)) return run.differing[path];
  return Object.hasOwn(page.shared, path) && !run.lacks.includes(path) ? page.shared[path] : undefined;
}

function settings(run) {
  const merged = { ...page.shared, ...run.differing };
  for (const path of run.lacks) if (!Object.hasOwn(run.differing, path)) delete merged[path];
  return merged;
}

// Four decimals for fractions; counts are not rounded.
function digits(value) {
  if (value === null || value === undefined) return "";
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  if (size !== 0 && size < 0.0005) return value.toExponential(2);
  return Number.isInteger(value) && size > 1 ? String(value) : value.toFixed(size < 10 ? 4 : 1);
}
