// The overview tables: sort, filter, choose columns, open a run.
const tables = all("table.overview");
const filter = byId("filter");
const OPERATORS = {
  ">=": (a, b) => a >= b, "<=": (a, b) => a <= b, "!=": (a, b) => a !== b,
  ">": (a, b) => a > b, "<": (a, b) => a < b, "=": (a, b) => a === b,
};

// The metric or setting that the key of a condition refers to: a full name, or the end of one.
function resolve(key) {
  const names = [...page.names, ...new Set([...Object.keys(page.shared), ...page.runs.flatMap((run) => Object.keys(run.differing))])];
  const candidates = [key, `${page.split}/student/${key}`, `${page.split}/${key}`, `student/${key}`];
  return candidates.find((name) => names.includes(name))
    ?? names.find((name) => name.endsWith("/" + key)) ?? names.find((name) => name.endsWith("." + key)) ?? null;
}

function valueOf(row, name) {
  const group = page.groups.find((candidate) => candidate.id === row.dataset.id);
  const run = runs.get(group ? group.runs[0] : row.dataset.id);
  if (name === "state") return run.state;
  if (name === "seed" && group) return group.runs.map((id) => setting(runs.get(id), "seed"));
  if (place.has(name)) return (group ?? run).values[place.get(name)];
  return setting(run, name);
}

function textOf(row) {
  const group = page.groups.find((candidate) => candidate.id === row.dataset.id);
  const members = group ? group.runs.map((id) => runs.get(id)) : [runs.get(row.dataset.id)];
  const label = group ? group.label : groupOf.get(row.dataset.id)?.label ?? "";
  const words = members.flatMap((run) => [run.name, run.state, run.baseline, ...Object.values(run.differing)]);
  return [label, row.textContent, ...words].join(" ").toLowerCase();
}

// The text of a filter as tests of a row, and the unknown keys in it.
function parse(text) {
  const tests = [], unknown = [];
  for (const token of text.trim().split(/\s+/).filter(Boolean)) {
    const condition = token.match(/^([^<>=!]+)(>=|<=|!=|>|<|=)(.+)$/);
    if (!condition) {
      tests.push((row) => textOf(row).includes(token.toLowerCase()));
      continue;
    }
    const [, key, operator, expected] = condition;
    const name = key === "state" ? key : resolve(key);
    if (name === null) unknown.push(key);
    tests.push((row) => {
      if (name === null) return false;
      const value = valueOf(row, name);
      if (Array.isArray(value)) return value.some((one) => compare(one, operator, expected));
      return value !== null && value !== undefined && compare(value, operator, expected);
    });
  }
  return { tests, unknown };
}

function compare(value, operator, expected) {
  const [a, b] = [Number(value), Number(expected)];
  if (Number.isNaN(a) || Number.isNaN(b)) {
    const [first, second] = [String(value).toLowerCase(), expected.toLowerCase()];
    return operator === "!=" ? first !== second : operator === "=" && first === second;
  }
  return OPERATORS[operator](a, b);
}

function applyFilter() {
  const { tests, unknown } = parse(filter.value);
  for (const table of tables) {
    const rows = all("tbody tr", table);
    let shown = 0;
    for (const row of rows) {
      row.hidden = !tests.every((test) => test(row));
      shown += !row.hidden;
    }
    if (table.closest(".scroller").hidden) continue;
    const what = table.dataset.name;
    byId("filter-status").textContent = unknown.length
      ? `Unknown metric or setting “${unknown[0]}”: try a metric such as accuracy, or a setting such as seed.`
      : tests.length ? `${shown} of ${rows.length} ${what} shown.` : "";
  }
  keep("filter", filter.value);
}

function sort(table, column, direction) {
  const body = table.tBodies[0];
  const keyed = [...body.rows].map((row, i) => ({ row, i, value: row.cells[column].dataset.value }));
  const numeric = keyed.every(({ value }) => value === undefined || !Number.isNaN(Number(value)));
  const sign = direction === "ascending" ? 1 : -1;
  keyed.sort((a, b) => {
    if (a.value === undefined || b.value === undefined) return (a.value === undefined) - (b.value === undefined) || a.i - b.i;
    const order = numeric ? Number(a.value) - Number(b.value) : a.value.localeCompare(b.value, "en", { numeric: true });
    return sign * order || a.i - b.i;
  });
  body.append(...keyed.map(({ row }) => row));
  all("thead th", table).forEach((head, i) => head.setAttribute("aria-sort", i === column ? direction : "none"));
  keep("sort-" + table.dataset.name, [column, direction]);
}

function show(name) {
  for (const view of all("[data-view]")) view.hidden = view.dataset.view !== name;
  for (const button of all("[data-show]")) button.setAttribute("aria-pressed", String(button.dataset.show === name));
  keep("view", name);
  listColumns(tables.find((table) => table.dataset.name === name));
  applyFilter();
}

function showColumn(table, key, shown) {
  const place = all("thead th", table).findIndex((head) => head.dataset.column === key);
  if (place < 0) return;
  for (const row of table.rows) row.cells[place].hidden = !shown;
}

function listColumns(table) {
  const boxes = all("thead th[data-column]", table).map((head) => {
    const box = make("input", { type: "checkbox" });
    box.checked = !head.hidden;
    box.addEventListener("change", () => {
      showColumn(table, head.dataset.column, box.checked);
      keep("column-" + table.dataset.name, { ...kept["column-" + table.dataset.name], [head.dataset.column]: box.checked });
    });
    const button = head.querySelector("button");
    const small = button.querySelector("small");
    return make("label", { title: head.dataset.column }, box, button.firstChild.textContent, ...(small ? [small.cloneNode(true)] : []));
  });
  byId("columns").replaceChildren(...boxes);
}

for (const table of tables) {
  const heads = all("thead th", table).map((head) => [head.querySelector("button").firstChild.textContent, head.querySelector("small")?.textContent.replace(/^student, (test|val)(, )?/, "")]);
  for (const cell of all("td", table)) cell.dataset.label = heads[cell.cellIndex].filter(Boolean).join(", "); // of a card, on a phone
  for (const [key, shown] of Object.entries(kept["column-" + table.dataset.name] ?? {})) showColumn(table, key, shown);
  const sorted = kept["sort-" + table.dataset.name];
  if (sorted && sorted[0] < table.rows[0].cells.length) sort(table, ...sorted);
  table.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("th");
    if (!head || !event.target.closest("button")) return;
    const first = head.classList.contains("number") ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    sort(table, head.cellIndex, head.getAttribute("aria-sort") === first ? other : first);
  });
  table.tBodies[0].addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row && !event.target.closest("a") && !String(getSelection())) location.hash = row.querySelector("a").hash;
  });
}
for (const button of all("[data-show]")) button.addEventListener("click", () => show(button.dataset.show));
filter.addEventListener("input", applyFilter);
filter.value = kept.filter ?? "";
show(kept.view ?? all("[data-show]").find((button) => button.getAttribute("aria-pressed") === "true").dataset.show);
const menu = document.querySelector(".menu");
document.addEventListener("click", (event) => { if (!menu.contains(event.target)) menu.open = false; });
menu.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  menu.open = false;
  menu.querySelector("summary").focus();
});
