// Keys that work on every page: / search, g then o, j or r for a page.
const pages = { o: "/admin/", j: "/admin/jobs/list", r: "/admin/joblogs/list" };
let afterG = false;
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  if (typing || event.isComposing || event.ctrlKey || event.altKey || event.metaKey) return;
  const search = document.getElementById("hub-search");
  if (!search) return;
  if (event.key === "/") {
    event.preventDefault();
    search.focus();
  } else if (afterG && pages[event.key]) {
    location.assign(pages[event.key]);
  }
  afterG = event.key === "g";
});
// A menu closes by Escape and by a click beside it.
document.addEventListener("click", (event) => closeMenus(event.target));
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") closeMenus(null);
});
function closeMenus(target) {
  for (const menu of document.querySelectorAll("details.hub-menu[open]")) {
    if (!target || !menu.contains(target)) menu.open = false;
  }
}
