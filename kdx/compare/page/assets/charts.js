// Charts are drawn when they become visible, and again when the theme or an option changes.
const drawn = new Map(); // element -> the function that draws it
// The toolbar lies in the margin above the data (see `_template`) and appears on hover. Where nothing hovers there is none, and a
// finger scrolls the page instead of zooming.
const touch = matchMedia("(hover: none)").matches;
const options = { displaylogo: false, responsive: true, displayModeBar: touch ? false : "hover", modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] };

// The figure in the colors of the current theme.
function themed(figure, changes = {}) {
  const theme = document.documentElement.dataset.theme;
  let text = JSON.stringify(figure);
  if (theme === "dark") {
    for (const [light, dark] of Object.entries(page.dark)) text = text.replaceAll(light, dark);
  }
  const copy = JSON.parse(text);
  copy.layout = { ...copy.layout, ...changes, template: page.templates[theme] };
  return copy;
}

function plot(element, figure, { log = false } = {}) {
  const drawing = themed(figure);
  if (log && drawing.layout.yaxis) drawing.layout.yaxis = { ...drawing.layout.yaxis, type: "log", range: undefined };
  const height = drawing.layout.height ?? Math.max(300, Math.min(440, 0.6 * element.clientWidth));
  element.style.minHeight = height + "px";
  drawing.layout.height = height;
  if (touch) Object.assign(drawing.layout, { dragmode: false, margin: { ...drawing.layout.margin, t: 12 } });
  const axis = drawing.layout.xaxis;
  if (axis && element.clientWidth < 480 && !axis.tickmode && !axis.dtick) drawing.layout.xaxis = { nticks: 4, ...axis };
  const least = drawing.layout.meta?.minWidth ?? 0;
  if (element.clientWidth < least) drawing.layout.width = least;
  legend(element, drawing.data);
  return Plotly.react(element, drawing.data, drawing.layout, options);
}

// A button per named line that shows or hides its traces: Plotly's own legend is not accessible by keyboard.
function legend(element, traces) {
  const entries = new Map();
  traces.forEach((trace, i) => {
    const key = trace.legendgroup ?? trace.name;
    if (key === undefined) return;
    if (!entries.has(key)) entries.set(key, { places: [] });
    const entry = entries.get(key);
    entry.places.push(i);
    if (trace.name && trace.showlegend !== false && !entry.trace) entry.trace = trace;
  });
  const named = [...entries].filter(([, entry]) => entry.trace);
  element.parentElement.querySelector(".legend")?.remove();
  if (named.length < 2) return;
  const hidden = (element.hiddenKeys ??= new Set());
  const paint = () => Plotly.restyle(element, { visible: traces.map((trace) => !hidden.has(trace.legendgroup ?? trace.name)) });
  const buttons = named.map(([key, { trace }]) => {
    const button = make("button", { type: "button", "aria-pressed": String(!hidden.has(key)) }, swatch(trace), plainly(trace.name));
    button.addEventListener("click", () => {
      hidden.has(key) ? hidden.delete(key) : hidden.add(key);
      button.setAttribute("aria-pressed", String(!hidden.has(key)));
      paint();
    });
    return button;
  });
  traces.forEach((trace) => { if (hidden.has(trace.legendgroup ?? trace.name)) trace.visible = false; });
  element.after(make("div", { class: "legend", role: "group", "aria-label": "Legend: press a button to hide or show a line" }, ...buttons));
}

// Names are escaped for Plotly, which interprets some markup; here they are plain text.
function plainly(name) {
  return name.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");
}

function swatch(trace) {
  const drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [name, value] of Object.entries({ width: 20, height: 12, viewBox: "0 0 20 12", "aria-hidden": "true" })) drawing.setAttribute(name, value);
  const add = (tag, attributes) => {
    const shape = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) shape.setAttribute(name, value);
    drawing.append(shape);
  };
  const color = trace.marker?.color ?? trace.line?.color ?? "currentColor";
  const dash = { dash: "5 3", dot: "2 2", dashdot: "5 2 1 2", longdash: "8 3" }[trace.line?.dash] ?? "none";
  if (trace.mode.includes("lines")) add("line", { x1: 0, x2: 20, y1: 6, y2: 6, stroke: trace.line?.color ?? color, "stroke-width": 2.2, "stroke-dasharray": dash });
  if (trace.mode.includes("markers")) {
    const [symbol, open] = [trace.marker.symbol ?? "circle", String(trace.marker.symbol).endsWith("-open")];
    const shape = page.shapes[symbol.replace("-open", "")] ?? page.shapes.circle;
    add("path", { d: shape, transform: "translate(10 6) scale(0.9)", ...(open ? { fill: "none", stroke: color, "stroke-width": 1.5 } : { fill: color }) });
  }
  return drawing;
}

const sight = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    sight.unobserve(entry.target);
    drawn.get(entry.target)();
    entry.target.dataset.drawn = "true";
  }
}, { rootMargin: "300px" });

function whenSeen(element, draw) {
  drawn.set(element, draw);
  sight.observe(element);
}

function redraw() {
  for (const [element, draw] of drawn) {
    if (!element.isConnected) drawn.delete(element);
    else if (element.dataset.drawn) draw();
  }
  const dark = document.documentElement.dataset.theme === "dark";
  for (const mark of all("[data-color]")) mark.setAttribute("fill", dark ? page.dark[mark.dataset.color] : mark.dataset.color);
}

const figures = new Map(); // chart -> its figures, read when it is first drawn
for (const chart of all(".chart")) {
  const { chart: key, start } = chart.dataset;
  const selects = all("select", chart);
  const log = chart.querySelector("[data-log]");
  const draw = () => {
    if (!figures.has(key)) figures.set(key, JSON.parse(byId("data-" + key).textContent));
    const places = start.split(",");
    for (const select of selects) places[Number(select.dataset.place)] = select.value;
    plot(chart.querySelector(".plot"), figures.get(key)[places.join(",")], { log: log?.checked });
  };
  selects.forEach((select, i) => {
    const before = kept[`choice-${key}-${start}-${i}`];
    if (before !== undefined && select.options[before]) select.value = before;
    select.addEventListener("change", () => { keep(`choice-${key}-${start}-${i}`, select.value); draw(); });
  });
  log?.addEventListener("change", draw);
  whenSeen(chart.querySelector(".plot"), draw);
}

// For printing, all charts are drawn in the light theme.
let before = null;
addEventListener("beforeprint", () => {
  before = document.documentElement.dataset.theme;
  document.documentElement.dataset.theme = "light";
  for (const element of drawn.keys()) element.dataset.drawn = "true";
  redraw();
});
addEventListener("afterprint", () => {
  document.documentElement.dataset.theme = before;
  redraw();
});

byId("theme").addEventListener("click", () => {
  const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  try { localStorage.setItem("kdx-theme", root.dataset.theme); } catch { /* without storage, the theme is not remembered */ }
  redraw();
});
redraw();
