// Keeps a page true without reloading: asks for it again as fragments, swaps blocks and rows that changed, and
// keeps times going by the server's clock. Nothing is swapped under the reader's hand.
const EVERY = 5000;
const words = document.getElementById("hub-words");
const stale = document.getElementById("hub-stale");
const clock = document.getElementById("hub-clock");
const skew = Date.parse(words.dataset.now) - Date.now();
let etag = "", failures = 0, isWaiting = false, goodAt = new Date();

const fill = (text, values) => text.replace(/\{(\w)\}/g, (_, name) => values[name]);
const two = (n) => String(n).padStart(2, "0");

function length(s) {
  if (s < 9.95) return fill(words.dataset.seconds, { n: s.toFixed(1) });
  s = Math.round(s);
  if (s < 60) return fill(words.dataset.seconds, { n: s });
  if (s < 3600) return fill(words.dataset.minutes, { m: Math.floor(s / 60), s: two(s % 60) });
  if (s < 86400) return fill(words.dataset.hours, { h: Math.floor(s / 3600), m: two(Math.floor((s % 3600) / 60)) });
  return fill(words.dataset.days, { d: Math.floor(s / 86400), h: Math.floor((s % 86400) / 3600) });
}

function relative(s) {
  const past = s >= 0, size = Math.abs(s);
  const unit = size >= 86400 ? "d" : size >= 3600 ? "h" : size >= 60 ? "m" : "s";
  const n = Math.floor(size / { d: 86400, h: 3600, m: 60, s: 1 }[unit]);
  return fill(words.dataset[(past ? "ago" : "in") + unit.toUpperCase()], { n });
}

const timeOf = (moment) => new Date(moment).toLocaleTimeString("en-GB", { timeZone: words.dataset.zone });

function tick() {
  const now = Date.now() + skew;
  clock.hidden = false;
  clock.lastChild.textContent = timeOf(now);
  for (const time of document.querySelectorAll("time[data-tick]")) {
    const since = (now - Date.parse(time.dateTime)) / 1000, ahead = Math.max(-since, 0);
    let text = null;
    if (time.dataset.tick === "ago") text = relative(since);
    else if (time.dataset.tick === "elapsed") text = length(Math.floor(Math.max(since, 0) * 10) / 10);
    else if (time.dataset.tick === "countdown")
      text = ahead < 1 ? words.dataset.due : ahead < 3600 ? `${Math.floor(ahead / 60)}:${two(Math.floor(ahead % 60))}` : length(ahead);
    else if (failures < 2)  // "as of": the moment of the last good answer
      text = timeOf(goodAt);
    if (text !== null && time.textContent !== text) time.textContent = text;
  }
}

function isHeld(block) {
  const selection = getSelection();
  const focused = document.activeElement;
  return (block.contains(focused) && focused.tagName !== "A")
    || block.querySelector("details[open], dialog[open], input:checked")
    || (selection && !selection.isCollapsed && selection.containsNode(block, true));
}

// A link keeps the focus where it is still there.
function replace(old, fresh) {
  const link = old.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  old.replaceWith(fresh);
  if (link !== null) fresh.querySelector(`a[href="${CSS.escape(link)}"]`)?.focus({ preventScroll: true });
}

function swap(page) {
  let held = false;
  document.title = page.querySelector("title").textContent;
  document.querySelector("link[rel=icon]").href = page.querySelector("link[rel=icon]").getAttribute("href");
  for (const block of document.querySelectorAll("[data-live]")) {
    const fresh = page.querySelector(`[data-live="${block.dataset.live}"]`);
    if (!fresh || fresh.dataset.v === block.dataset.v) continue;
    if (isHeld(block)) held = true;
    else replace(block, fresh);
  }
  const rows = document.querySelector("[data-live-rows]");
  if (rows) held = swapRows(rows, page) || held;
  return held;
}

// Known rows change in place; new ones are only counted, so that nothing moves.
function swapRows(rows, page) {
  let held = false, added = 0;
  for (const fresh of page.querySelectorAll("tr[data-key]")) {
    const row = rows.querySelector(`tr[data-key="${CSS.escape(fresh.dataset.key)}"]`);
    if (!row) { added += 1; continue; }
    if (row.dataset.v === fresh.dataset.v) continue;
    if (isHeld(row)) held = true;
    else { fresh.classList.add("hub-fresh"); replace(row, fresh); }
  }
  const button = document.getElementById("live-new");
  if (rows.dataset.liveRows === "first" && added) {
    button.hidden = false;
    button.textContent = fill(button.dataset.text, { n: added });
  }
  return held;
}

export async function refresh() {
  try {
    const headers = { "Hub-Live": "1", ...(etag && { "If-None-Match": etag }) };
    const answer = await fetch(location.href, { headers, cache: "no-store", redirect: "error" });
    if (answer.status !== 304) {
      if (!answer.ok) throw new Error(String(answer.status));
      const page = document.createElement("template");
      page.innerHTML = await answer.text();
      isWaiting = swap(page.content);
      etag = isWaiting ? "" : answer.headers.get("ETag");
    }
    failures = 0;
    goodAt = new Date(Date.now() + skew);
  } catch {
    failures += 1;
  }
  stale.hidden = failures < 2;
  clock.classList.toggle("hub-is-stale", failures >= 2);
  if (failures >= 2) stale.textContent = words.dataset.stale.replace("{at}", timeOf(goodAt));
  tick();
}

setInterval(tick, 1000);
document.addEventListener("focusout", () => { if (isWaiting) setTimeout(refresh, 200); });
tick();
if (!document.getElementById("log")) {  // a run's page is told by its stream
  setInterval(() => { if (!document.hidden) refresh(); }, EVERY);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
}
