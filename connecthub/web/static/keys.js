// What works on every page: keys, menus that close, and buttons that copy.
import { openDialog } from "./dialog.js";

const pages = { o: "/admin/", j: "/admin/jobs/list", r: "/admin/joblogs/list" };
const OFF = "hub-keys-off"; // kept in this browser only
let afterG = false;

const rows = () => [...document.querySelectorAll("main [data-key]")].filter((row) => row.getClientRects().length);
const current = () => document.activeElement?.closest("[data-key]");

function move(step) {
  const all = rows();
  const at = all.indexOf(current());
  const next = all[at < 0 ? (step > 0 ? 0 : all.length - 1) : at + step];
  next?.querySelector("a")?.focus(); // Enter opens a link by itself
}

function act(name) {
  const holder = current() ?? (rows().length ? null : document);
  holder?.querySelector(`[data-do="${name}"]`)?.click();
}

const actions = {
  "/": () => document.getElementById("hub-search")?.focus(),
  "?": () => openDialog("/admin/keys"),
  j: () => move(1),
  k: () => move(-1),
  x: () => current()?.querySelector("input[type=checkbox]")?.click(),
  r: () => act("run"),
  e: () => act("edit"),
};

export const areKeysOff = () => Boolean(localStorage.getItem(OFF));

// Whether a key is meant for the page, and not for a field, a dialog or the browser.
export function isForPage(event) {
  const isTaken = event.target.closest("input:not([type=checkbox]), textarea, select, dialog, [contenteditable]");
  return !isTaken && !event.isComposing && !event.ctrlKey && !event.altKey && !event.metaKey;
}

document.addEventListener("keydown", (event) => {
  if (!isForPage(event) || !document.getElementById("hub-search")) return;
  if (areKeysOff() && event.key !== "?") return;
  if (afterG && pages[event.key]) location.assign(pages[event.key]);
  else if (actions[event.key]) {
    event.preventDefault();
    actions[event.key]();
  }
  afterG = event.key === "g";
});

// The page that lists the keys can switch them off.
function offerSwitch() {
  const box = document.getElementById("hub-keys-on");
  if (!box) return;
  box.closest("label").hidden = false;
  box.checked = !localStorage.getItem(OFF);
  box.addEventListener("change", () => (box.checked ? localStorage.removeItem(OFF) : localStorage.setItem(OFF, "1")));
}
document.addEventListener("hub-opened", offerSwitch);
offerSwitch();

// Tabs that are wider than the screen show the one that is open.
for (const tab of document.querySelectorAll(".hub-tabs .active")) tab.closest(".hub-tabs").scrollLeft = tab.offsetLeft - 48;

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

// Over plain HTTP no page may write to the clipboard: then the text is shown, selected.
const copied = document.getElementById("hub-keys").dataset.copied;
async function copy(button) {
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    const before = button.innerHTML;
    button.textContent = copied;
    setTimeout(() => (button.innerHTML = before), 1500);
  } catch {
    const field = Object.assign(document.createElement("input"), { className: "hub-copied", readOnly: true, value: button.dataset.copy });
    button.after(field);
    field.select();
    field.addEventListener("blur", () => field.remove());
  }
}
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) copy(button);
});
document.documentElement.classList.add("hub-can-copy");
