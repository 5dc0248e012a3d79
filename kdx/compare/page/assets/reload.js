// While runs are in progress, the page reloads itself at the same place, but not while a dialog is open, while the user types, or
// after Pause. The place is the section or chart at the top and how far it is scrolled: charts that are not drawn yet have another
// height, so that a number of pixels from the top of the page would move it with each reload.
const every = Number(document.documentElement.dataset.refresh || 0);
const TOP = 120; // px below which the place begins, as above it there is the header
const marks = all("section, .chart");
const topOf = (mark) => mark.getBoundingClientRect().top;
const keepPlace = () => {
  const mark = marks.findLast((one) => topOf(one) <= TOP);
  keep("place", mark && scrollY > 0 ? [mark.getAttribute("aria-labelledby"), topOf(mark)] : null);
};
history.scrollRestoration = "manual";
const mark = kept.place && marks.find((one) => one.getAttribute("aria-labelledby") === kept.place[0]);
if (mark && !location.hash) scrollTo({ top: scrollY + topOf(mark) - kept.place[1], behavior: "instant" });
addEventListener("pagehide", keepPlace);
if (every > 0) {
  const pause = byId("pause");
  const paused = (value) => {
    pause.setAttribute("aria-pressed", String(value));
    pause.textContent = value ? "Resume" : "Pause";
    keep("paused", value);
  };
  paused(kept.paused === true);
  pause.addEventListener("click", () => paused(pause.getAttribute("aria-pressed") !== "true"));
  setInterval(() => {
    const busy = dialog.open || document.activeElement?.matches("input, select") || document.hidden;
    if (!busy && pause.getAttribute("aria-pressed") !== "true") { keepPlace(); location.reload(); }
  }, every * 1000);
}
