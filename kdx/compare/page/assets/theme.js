// Runs before the page is drawn, so that the page never appears in the wrong theme.
(() => {
  let theme = null;
  try { theme = localStorage.getItem("kdx-theme"); } catch { /* storage may be forbidden for files */ }
  const dark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
})();
