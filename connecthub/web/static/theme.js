// Before anything is drawn, so that a dark page never flashes white.
(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const wanted = root.dataset.theme;
    root.dataset.bsTheme = wanted === "dark" || (wanted !== "light" && system.matches) ? "dark" : "light";
  };
  system.addEventListener("change", apply);
  apply();
})();
