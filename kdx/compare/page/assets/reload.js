// While runs are in progress, the page reloads itself at its scroll position, but not while a dialog is open, while the user
// types, or after Pause.
const every = Number(document.documentElement.dataset.refresh || 0);
if (kept.scroll !== undefined && !location.hash) scrollTo({ top: kept.scroll, behavior: "instant" });
addEventListener("pagehide", () => keep("scroll", scrollY));
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
    if (!busy && pause.getAttribute("aria-pressed") !== "true") { keep("scroll", scrollY); location.reload(); }
  }, every * 1000);
}
