"use strict";
// Runs before the page is drawn, so that a chosen theme does not flash. Storage may be refused.
(() => {
  const KEY = "dihal-bench-theme";
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");

  const kept = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null;
    }
  };
  const keep = (theme) => {
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // The choice then holds for this page only.
    }
  };
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);

  const shown = () => {
    const button = document.getElementById("theme");
    button.setAttribute("aria-pressed", String(dark()));
    document.dispatchEvent(new Event("dihal:theme"));
  };

  if (["light", "dark"].includes(kept())) root.dataset.theme = kept();
  document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").addEventListener("click", () => {
      root.dataset.theme = dark() ? "light" : "dark";
      keep(root.dataset.theme);
      shown();
    });
    system.addEventListener("change", shown);
    shown();
  });
})();
