// One run in full, in a dialog that a link #run-... opens.
const dialog = byId("detail");

function pairs(entries) {
  return make("dl", { class: "pairs" }, ...entries.flatMap(([name, value]) =>
    [make("dt", {}, name), make("dd", { class: /^(Selected|Started|Cost)/.test(name) ? "words" : null }, value)]));
}

function metricTable(run) {
  const kinds = page.names.filter((_, i) => run.values[i] !== null && run.values[i] !== undefined);
  const owners = new Map(), rows = new Map();
  for (const name of kinds) {
    const [what, whose] = page.words[place.get(name)];
    owners.set(whose, (owners.get(whose) ?? 0) + 1);
    if (!rows.has(what)) rows.set(what, new Map());
    rows.get(what).set(whose, [run.values[place.get(name)], name]);
  }
  const wide = [...owners].filter(([whose]) => /, (test|val|preflight)$/.test(whose)).map(([whose]) => whose);
  const single = [...rows].flatMap(([what, held]) => [...held].filter(([whose]) => !wide.includes(whose))
    .map(([whose, [value, name]]) => [whose ? `${what} (${whose})` : what, `${digits(value)} ${page.words[place.get(name)][2]}`]));
  const body = [...rows].filter(([, held]) => [...held.keys()].some((whose) => wide.includes(whose))).map(([what, held]) =>
    make("tr", {}, make("th", { scope: "row" }, what), ...wide.map((whose) =>
      make("td", { class: "number", title: held.get(whose)?.[1] }, digits(held.get(whose)?.[0])))));
  const parts = [];
  if (body.length) {
    const head = make("tr", {}, make("th", { scope: "col" }, ""), ...wide.map((whose) => make("th", { scope: "col", class: "number" }, whose)));
    parts.push(make("div", { class: "scroller", tabindex: 0, role: "region", "aria-label": "Metrics" },
      make("table", {}, make("thead", {}, head), make("tbody", {}, ...body))));
  }
  if (single.length) parts.push(make("h3", {}, "Cost and others"), pairs(single));
  return parts;
}

function configTable(run) {
  const found = settings(run);
  const search = make("input", { type: "search", placeholder: "part of a name or value", autocomplete: "off" });
  const rows = Object.keys(found).sort((a, b) => (Object.hasOwn(run.own, b) - Object.hasOwn(run.own, a)) || a.localeCompare(b))
    .map((path) => make("tr", { class: Object.hasOwn(run.own, path) ? "own" : null }, make("td", {}, path), make("td", {}, found[path])));
  search.addEventListener("input", () => {
    const wanted = search.value.toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
  return [
    make("div", { class: "controls" }, make("label", { class: "grow" }, "Find ", search)),
    make("div", { class: "scroller", tabindex: 0, role: "region", "aria-label": "Config" }, make("table", { class: "settings" }, make("tbody", {}, ...rows))),
    make("p", { class: "note" }, "First, with a bar, what is not the same in all runs of this page."),
  ];
}

function open(run) {
  const seed = run.seed === null ? "" : `, seed ${run.seed}`;
  byId("detail-title").textContent = run.name + seed;
  const group = groupOf.get(run.id);
  const parts = [];
  const words = [run.state, group ? `group ${group.label}` : "", run.baseline ? `baseline ${run.baseline}` : "", (run.facts.find(([label]) => label === "Selected") ?? [])[1]].filter(Boolean).join(" · ");
  parts.push(make("p", { class: "note" }, words));
  if (run.problem) parts.push(make("p", { class: "problem" }, run.problem));
  if (group && group.runs.length > 1) {
    const links = group.runs.flatMap((id) => id === run.id ? [make("strong", {}, `${runs.get(id).seed} `)] : [make("a", { href: "#" + id }, String(runs.get(id).seed)), " "]);
    parts.push(make("p", { class: "note" }, "Seeds of this group: ", ...links));
  }
  parts.push(...section("Metrics", metricTable(run)));
  let diagram = null;
  if (run.reliability) {
    diagram = make("div", { class: "plot", role: "img", "aria-label": "Reliability diagrams of this run" });
    parts.push(...section("Reliability", [diagram]));
  }
  for (const picture of run.pictures) {
    const { source, caption, width, height } = picture;
    parts.push(...section(caption, [make("figure", {}, make("img", { src: source, alt: caption, width, height, loading: "lazy" }))]));
  }
  parts.push(...section("Where it comes from", [pairs(run.facts)]));
  if (run.folder) parts.push(make("p", { class: "note" }, make("a", { href: run.folder }, "Open the folder")));
  parts.push(...section("Config", Object.keys(settings(run)).length && run.state !== "damaged" ? configTable(run) : []));
  byId("detail-body").replaceChildren(...parts);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  if (diagram) { drawn.set(diagram, () => plot(diagram, run.reliability)); drawn.get(diagram)(); diagram.dataset.drawn = "true"; }
}

const section = (title, parts) => (parts.length ? [make("h3", {}, title), ...parts] : []);

function follow() {
  const run = runs.get(decodeURIComponent(location.hash.slice(1)));
  if (run) open(run);
  else if (dialog.open) dialog.close();
}

// The rows' links lead here and back: the focus returns to the row by itself, as the dialog is modal.
byId("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => {
  if (runs.has(location.hash.slice(1))) history.replaceState(null, "", location.pathname + location.search);
});
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
addEventListener("hashchange", follow);
follow();
