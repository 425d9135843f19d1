// Light or dark: follows the system until the reader chooses. All pages take this piece.
(() => {
  "use strict";
  const root = document.documentElement, button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
  const name = () => { button.textContent = isDark() ? "Light page" : "Dark page"; };
  try { const kept = localStorage.getItem("forgetfilter-theme"); if (kept === "dark" || kept === "light") root.dataset.theme = kept; } catch { /* no storage here */ }
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("forgetfilter-theme", root.dataset.theme); } catch { /* no storage here */ }
    name();
  });
  system.addEventListener("change", name);
  name();
})();
