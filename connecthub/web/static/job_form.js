// The form of a Job while a person types: one debounced preview, which changes nothing and gets no secret.

import "./json_editor.js";

const form = document.getElementById("job-form");
// In the block of secrets: what a preview may not know of, and so would draw without it.
const touched = ":checked, .is-invalid, .form-control:not(:placeholder-shown)";
const secret = /^(s\.|n[kv]\.|secret_cfg$)/;
document.documentElement.classList.add("hub-has-js");
let timer = 0;
let latest = 0;
let changed = false;

function typed() {
  const fields = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (!secret.test(name)) fields.append(name, value);
  if (form.dataset.of) fields.set("of", form.dataset.of);
  else fields.set("secret_cfg", "{}");
  return fields;
}

async function preview() {
  const mine = ++latest;
  const answer = await fetch("/admin/jobs/preview", { method: "POST", body: typed() });
  if (answer.redirected) tell("signed-out");
  if (!answer.ok || answer.redirected || mine !== latest) return; // what came in the meantime is newer
  const { blocks, public_cfg: json, public_error: wrong } = await answer.json();
  // Text, fields and what the fields were drawn from stay together, or a save would take a typed field for unchanged;
  // a text that is no JSON changes no field.
  const area = form.elements.public_cfg;
  const isAhead = wrong.length > 0 || (document.activeElement === area && area.value !== json);
  if (!isAhead && area.value !== json) {
    area.value = json;
    area.dispatchEvent(new Event("hub-set"));
  }
  for (const [name, html] of Object.entries(blocks)) {
    const block = form.querySelector(`[data-block="${name}"]`);
    // A block that holds the focus, or a secret just typed or to be typed again, is never taken away under the hand.
    const held =
      block?.contains(document.activeElement) ||
      (name === "secrets" && block?.querySelector(touched)) ||
      (name === "fields" && isAhead);
    if (block && !held && block.dataset.html !== html) {
      block.innerHTML = html;
      block.dataset.html = html;
    }
  }
  document.dispatchEvent(new Event("hub-swapped"));
  const base = form.querySelector("input[name=params_base]");
  if (base && !isAhead) base.value = json;
}

function soon() {
  latest += 1; // an answer that is on its way is to what stood there before
  clearTimeout(timer);
  timer = setTimeout(preview, 300);
}

// One more row for a secret that no field stands for.
function addSecret() {
  const rows = form.querySelectorAll(".hub-secret-new");
  const row = rows[rows.length - 1].cloneNode(true);
  for (const input of row.querySelectorAll("input")) {
    input.name = input.name.replace(/\d+/, rows.length + 1);
    input.value = "";
  }
  rows[rows.length - 1].after(row);
  row.querySelector("input").focus();
}

// It is no part of the form: it changes nothing, and Enter does not save.
const filter = document.getElementById("handler-filter");
filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/);
  for (const row of form.querySelectorAll(".hub-picker li"))
    row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
});
filter.addEventListener("keydown", (event) => event.key === "Enter" && event.preventDefault());

form.addEventListener("input", (event) => {
  if (event.target === filter) return;
  changed = true;
  if (!secret.test(event.target.name) && !event.isComposing) soon();
});
form.addEventListener("compositionend", soon);
form.addEventListener("focusout", () => changed && soon());

form.addEventListener("click", (event) => {
  const { pick, cron, more } = event.target.closest("button")?.dataset ?? {};
  if (pick !== undefined) {
    form.elements.handler_path.value = pick;
    form.querySelector(".hub-picker").open = false;
    form.elements.handler_path.focus();
  } else if (cron !== undefined) {
    form.elements.cron_expr.value = cron;
  } else if (more !== undefined) {
    addSecret();
    return;
  } else return;
  changed = true;
  soon();
});

addEventListener("keydown", (event) => {
  if (event.key === "s" && (event.ctrlKey || event.metaKey) && !event.isComposing) {
    event.preventDefault();
    document.getElementById("save").click();
  }
});

// A session may have ended while a person typed, or the hub or its database be away: a post would lead to the log-in
// or to an error, and lose it all.
function tell(trouble) {
  for (const id of ["signed-out", "no-answer"]) document.getElementById(id).hidden = id !== trouble;
}

let sending = ""; // then "asks", "goes", "gone": a second click while the first is under way does nothing
form.addEventListener("submit", async (event) => {
  if (sending === "goes") {
    sending = "gone";
    changed = false;
    return;
  }
  event.preventDefault();
  if (sending) return;
  sending = "asks";
  const answer = await fetch("/admin/keys", { redirect: "manual", cache: "no-store" }).catch(() => null);
  const isWell = answer?.ok;
  tell(isWell ? "" : answer?.type === "opaqueredirect" ? "signed-out" : "no-answer");
  sending = isWell ? "goes" : "";
  if (isWell) form.requestSubmit(event.submitter);
});
addEventListener("pageshow", () => (sending = "")); // also when it comes back from the browser's cache

// The part of the cron expression that the caret is in.
const cronParts = document.querySelectorAll("#cron-parts > span");
document.addEventListener("selectionchange", () => {
  const field = form.elements.cron_expr;
  const before = document.activeElement === field ? field.value.slice(0, field.selectionStart).trimStart() : null;
  const at = before === null ? -1 : before.split(/\s+/).length - 1;
  cronParts.forEach((part, index) => part.classList.toggle("hub-is-here", index === at));
});
addEventListener("beforeunload", (event) => {
  if (changed) event.preventDefault();
});

form.querySelector("[aria-invalid]")?.focus();
if (form.querySelector("[aria-invalid]") || document.querySelector("main > [role=alert]")) {
  changed = true; // what was typed is not saved yet
  soon();
}
