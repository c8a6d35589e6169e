// A run's page: tabs, dialogs, and the log: live lines, follow, levels, find, wrap, copy.
import { areKeysOff, isForPage } from "./keys.js";
import { refresh } from "./live.js";

const $ = (id) => document.getElementById(id);
const log = $("log"), pill = $("log-pill"), follow = $("log-follow"), find = $("log-find"), level = $("log-level");
let source = null, last = Number(log.dataset.last), isFollowing = false, added = 0, newest = null, waiting = null, isOver = !log.dataset.stream;

for (const part of [find, level, $("log-wrap"), $("log-copy")]) part.hidden = false;

// The tabs are drawn anew when the run ends: no listener of their own.
document.addEventListener("click", (event) => {
  const tab = event.target.closest("[data-tab]");
  if (!tab) return;
  event.preventDefault();
  for (const other of document.querySelectorAll("[data-tab]")) {
    const is = other === tab;
    other.classList.toggle("active", is);
    other.setAttribute("aria-selected", is);
    $(`panel-${other.dataset.tab}`).hidden = !is;
  }
  history.replaceState(null, "", tab.href);
});

document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-dialog]"), closer = event.target.closest("[data-close]");
  if (opener && $(opener.dataset.dialog)) { event.preventDefault(); $(opener.dataset.dialog).showModal(); }
  if (closer) { event.preventDefault(); closer.closest("dialog").close(); }
});
const asked = document.querySelector("dialog[open]");
if (asked) {
  asked.removeAttribute("open");
  asked.showModal();
  const address = new URL(location.href);
  address.searchParams.delete("confirm"); // or the page, asked for anew, would bring the question back
  history.replaceState(null, "", address);
}

function element(tag, text, properties) {
  const made = document.createElement(tag);
  made.textContent = text;
  return Object.assign(made, properties);
}

function lineOf(line) {
  const row = document.createElement("div");
  row.id = `L${line.n}`;
  if (line.is_cut) { row.className = "hub-cut"; row.textContent = `${log.dataset.cut} ${line.text}`; return row; }
  row.className = "hub-ln";
  row.dataset.level = line.level;
  const said = element("span", "");
  if (line.source) said.append(element("i", `${line.source}: `));
  said.append(line.text);
  row.append(element("a", line.n, { href: `#L${line.n}` }), element("span", line.offset, { className: "hub-off", title: line.at }), element("b", line.level), said);
  row.hidden = !matches(row);
  return row;
}

// Offset, level and text; a cut is text only.
const textOf = (row) => (row.children.length ? [...row.children].slice(1, 4).map((part) => part.textContent).join(" ") : row.textContent);

// One button, which goes to the line that is pointed at.
const lineCopy = element("button", "", { type: "button", className: "hub-copy hub-copy-line ti ti-copy", title: log.dataset.word });
lineCopy.setAttribute("aria-label", log.dataset.word);
for (const kind of ["mouseover", "focusin"])
  log.addEventListener(kind, (event) => {
    const row = event.target.closest(".hub-ln");
    if (!row || lineCopy.parentNode === row) return;
    lineCopy.dataset.copy = textOf(row);
    row.append(lineCopy);
  });

function matches(row) {
  const text = find.value.toLowerCase();
  return (!level.value || row.dataset.level === level.value) && (!text || row.children[3].textContent.toLowerCase().includes(text));
}

function filter() {
  if (find.value || level.value) setFollow(false);
  for (const row of log.querySelectorAll(".hub-ln")) row.hidden = !matches(row);
}

const scroller = () => (getComputedStyle(log).overflowY === "auto" ? log : document.scrollingElement);
const isAtEnd = () => { const box = scroller(); return box.scrollHeight - box.scrollTop - box.clientHeight < 24; };
const toEnd = () => { const box = scroller(); box.scrollTop = box.scrollHeight; };

function setFollow(on) {
  isFollowing = on && !isOver;
  follow.setAttribute("aria-pressed", isFollowing);
  follow.classList.toggle("active", isFollowing);
  if (!isFollowing) return;
  if (waiting) { const lines = waiting; waiting = null; replace(lines); }
  added = 0;
  pill.hidden = true;
  toEnd();
}

function show(count) {
  $("log-empty")?.remove();
  if (isFollowing) return toEnd();
  if (!count) return;
  added += count;
  pill.hidden = false;
  pill.textContent = `↓ ${pill.dataset.text.replace("{n}", added)}`;
}

function replace(lines) {
  const first = lines[0].n;
  for (const row of [...log.children]) if (Number(row.id.slice(1)) >= first) row.remove();
  log.append(...lines.map(lineOf));
}

function listen() {
  if (source || isOver || document.hidden) return;
  source = new EventSource(`${log.dataset.stream}?line=${last}`);
  source.addEventListener("lines", (event) => {
    const lines = JSON.parse(event.data).filter((line) => line.n > last);
    if (!lines.length) return;
    last = lines.at(-1).n;
    newest = lines.at(-1);
    log.append(...lines.map(lineOf));
    show(lines.length);
  });
  // Lines behind the cut have moved: who reads them keeps them until following again.
  source.addEventListener("replace", (event) => {
    const lines = JSON.parse(event.data);
    last = lines[0].n - 1;
    if (isFollowing || !document.querySelector(".hub-cut")) replace(lines);
    else waiting = lines;
    const known = lines.findLastIndex((line) => line.at === newest?.at && line.text === newest?.text);
    show(newest ? lines.length - 1 - known : 0); // what is behind the cut comes again and again
    newest = lines.at(-1);
  });
  source.addEventListener("state", refresh);
  source.addEventListener("end", () => {
    isOver = true;
    isFollowing = false;
    follow.hidden = true;
    stop();
    refresh();
  });
}

function stop() { source?.close(); source = null; }

document.addEventListener("visibilitychange", () => { if (document.hidden) stop(); else { listen(); refresh(); } });
const leave = () => { if (isFollowing) setFollow(false); };
addEventListener("wheel", (event) => { if (event.deltaY < 0) leave(); }, { passive: true });
addEventListener("touchmove", () => { if (!isAtEnd()) leave(); }, { passive: true });
document.addEventListener("selectionchange", () => { if (!getSelection().isCollapsed && log.contains(getSelection().anchorNode)) leave(); });
log.addEventListener("scroll", () => { if (!isFollowing && added && isAtEnd()) setFollow(true); });
addEventListener("keydown", (event) => {
  if (!isForPage(event)) return;
  if (["PageUp", "Home", "ArrowUp"].includes(event.key)) leave();
  else if (areKeysOff()) return;
  else if (event.key === "f" || event.key === "End") setFollow(event.key === "End" || !isFollowing);
  else if (event.key === "w") $("log-wrap").click();
  else if (event.key === "[") $("run-before")?.click();
  else if (event.key === "]") $("run-after")?.click();
});
pill.addEventListener("click", () => setFollow(true));
follow.addEventListener("click", () => setFollow(!isFollowing));
find.addEventListener("input", filter);
level.addEventListener("change", filter);
$("log-wrap").addEventListener("click", (event) => event.currentTarget.setAttribute("aria-pressed", log.classList.toggle("hub-wrap")));
$("log-copy").addEventListener("click", async (event) => {
  const button = event.currentTarget, before = button.textContent;
  try {
    await navigator.clipboard.writeText([...log.children].map(textOf).join("\n"));
    button.textContent = button.dataset.copied;
    setTimeout(() => { button.textContent = before; }, 1500);
  } catch {  // plain HTTP has no clipboard: select instead
    getSelection().selectAllChildren(log);
  }
});

if (!isOver) {
  follow.hidden = false;
  if (!location.hash.startsWith("#L") && !$("panel-log").hidden) setFollow(true);
  listen();
} else if (log.dataset.failed && !location.hash) {
  const bad = log.querySelector('[data-level="ERROR"], [data-level="CRITICAL"]');
  if (bad) log.scrollTop = bad.offsetTop - log.offsetTop - 40;
}
