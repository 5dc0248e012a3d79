// The details of one run, in a dialog that a link #run-... opens.
const dialog = byId("detail");

function pairs(entries) {
  return make("dl", { class: "pairs" }, ...entries.flatMap(([name, value]) =>
    [make("dt", {}, name), make("dd", { class: /^(Selected|Started|Cost)/.test(name) ? "words" : null }, value)]));
}

function metricTable(run) {
  const kinds = page.names.filter((_, i) => run.values[i] !== null && run.values[i] !== undefined);
  const networks = new Set(), rows = new Map(); // "student, test", ...; quantity -> network -> [value, name]
  for (const name of kinds) {
    const [quantity, network] = page.words[place.get(name)];
    networks.add(network);
    if (!rows.has(quantity)) rows.set(quantity, new Map());
    rows.get(quantity).set(network, [run.values[place.get(name)], name]);
  }
  const wide = [...networks].filter((network) => /, (test|val|preflight)$/.test(network));
  const single = [...rows].flatMap(([quantity, values]) => [...values].filter(([network]) => !wide.includes(network))
    .map(([network, [value, name]]) => [network ? `${quantity} (${network})` : quantity, `${digits(value)} ${page.words[place.get(name)][2]}`]));
  const body = [...rows].filter(([, values]) => [...values.keys()].some((network) => wide.includes(network))).map(([quantity, values]) =>
    make("tr", {}, make("th", { scope: "row" }, quantity), ...wide.map((network) =>
      make("td", { class: "number", title: values.get(network)?.[1] }, digits(values.get(network)?.[0])))));
  const parts = [];
  if (body.length) {
    const head = make("tr", {}, make("th", { scope: "col" }, ""), ...wide.map((network) => make("th", { scope: "col", class: "number" }, network)));
    parts.push(make("div", { class: "scroller", tabindex: 0, role: "region", "aria-label": "Metrics" },
      make("table", {}, make("thead", {}, head), make("tbody", {}, ...body))));
  }
  if (single.length) parts.push(make("h3", {}, "Cost and other metrics"), pairs(single));
  return parts;
}

function configTable(run) {
  const config = settings(run);
  const differs = (path) => Object.hasOwn(run.differing, path);
  const search = make("input", { type: "search", placeholder: "part of a name or value", autocomplete: "off" });
  const rows = Object.keys(config).sort((a, b) => (differs(b) - differs(a)) || a.localeCompare(b))
    .map((path) => make("tr", { class: differs(path) ? "differing" : null }, make("td", {}, path), make("td", {}, config[path])));
  search.addEventListener("input", () => {
    const text = search.value.toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(text);
  });
  return [
    make("div", { class: "controls" }, make("label", { class: "grow" }, "Find ", search)),
    make("div", { class: "scroller", tabindex: 0, role: "region", "aria-label": "Config" }, make("table", { class: "settings" }, make("tbody", {}, ...rows))),
    make("p", { class: "note" }, "Settings that differ between the runs of this page come first and are marked with a bar."),
  ];
}

// The images on which student and teacher differ most; a button shows those of one kind only.
function disagreements(examples) {
  const tiles = examples.map(({ kind, lines, source }) => [kind, make("figure", { class: "tile" },
    make("img", { src: source, alt: lines[0], width: 96, height: 96 }), make("figcaption", {}, ...lines.map((line) => make("span", {}, line))))]);
  const kinds = ["all", ...new Set(examples.map(({ kind }) => kind))];
  const buttons = kinds.map((kind) => {
    const count = examples.filter((example) => kind === "all" || example.kind === kind).length;
    const button = make("button", { type: "button", "aria-pressed": String(kind === "all") }, `${kind} `, make("span", {}, String(count)));
    button.addEventListener("click", () => {
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      for (const [own, tile] of tiles) tile.hidden = kind !== "all" && own !== kind;
    });
    return button;
  });
  return [make("div", { class: "switch", role: "group", "aria-label": "Kind of disagreement" }, ...buttons), make("div", { class: "tiles" }, ...tiles.map(([, tile]) => tile)),
    make("p", { class: "note" }, `The ${examples.length} images with the largest KL(teacher || student), in nats; after each prediction, its confidence.`)];
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
  if (run.examples.length) parts.push(...section("Largest disagreement between student and teacher", disagreements(run.examples)));
  for (const picture of run.pictures) {
    const { source, caption, width, height } = picture;
    parts.push(...section(caption, [make("figure", {}, make("img", { src: source, alt: caption, width, height, loading: "lazy" }))]));
  }
  parts.push(...section("Provenance", [pairs(run.facts)]));
  if (run.wandb) parts.push(make("p", { class: "note" }, make("a", { href: run.wandb, rel: "noopener noreferrer" }, "Open the run in W&B")));
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

// The links in the rows open the dialog. It is modal, so the browser returns the focus to the row when it closes.
byId("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => {
  if (runs.has(location.hash.slice(1))) history.replaceState(null, "", location.pathname + location.search);
});
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
addEventListener("hashchange", follow);
follow();
