// The settings in which two runs differ.
const [first, second] = [byId("first"), byId("second")];
for (const select of [first, second]) {
  for (const run of page.runs.filter((candidate) => candidate.state !== "damaged")) {
    const label = groupOf.get(run.id)?.short ?? run.name;
    const name = label === run.name ? "" : ` · ${run.name}`;
    select.append(make("option", { value: run.id }, `${label} · seed ${run.seed}${name}`));
  }
}

function compareConfigs() {
  const runsOf = [first, second].map((select) => runs.get(select.value));
  if (runsOf.some((run) => !run)) return;
  const [a, b] = runsOf.map(settings);
  const paths = [...new Set([...Object.keys(a), ...Object.keys(b)])].sort();
  const different = paths.filter((path) => a[path] !== b[path]);
  const cell = (value) => make("td", { class: value === undefined ? "gone" : null }, value === undefined ? "not set" : value);
  const rows = different.map((path) => make("tr", {}, make("td", {}, path), cell(a[path]), cell(b[path])));
  const equal = paths.length - different.length;
  const note = different.length
    ? `${different.length} setting${different.length > 1 ? "s" : ""} differ${different.length > 1 ? "" : "s"}; the other ${equal} are equal.`
    : `The configs are equal: all ${equal} settings have the same value.`;
  const head = make("tr", {}, ...["setting", "from", "to"].map((word) => make("th", { scope: "col" }, word)));
  const table = make("div", { class: "scroller", tabindex: 0, role: "region", "aria-label": "Differing settings" },
    make("table", { class: "settings" }, make("thead", {}, head), make("tbody", {}, ...rows)));
  byId("difference").replaceChildren(make("p", { class: "note" }, note), ...(rows.length ? [table] : []));
  keep("compared", [first.value, second.value]);
}

const others = page.groups.map((group) => group.runs[0]);
[first.value, second.value] = (kept.compared ?? []).every((id) => runs.has(id)) && kept.compared
  ? kept.compared : [others[0], others[1] ?? page.groups[0]?.runs[1] ?? others[0]];
for (const select of [first, second]) select.addEventListener("change", compareConfigs);
compareConfigs();
