// Running now with other parameters: says beside each field what it was, and above them how many differ.
import "./json_editor.js";

function show() {
  const part = document.querySelector("[data-changes]");
  if (!part) return;
  let count = 0;
  for (const was of part.querySelectorAll("[data-was]")) {
    const field = document.getElementById(was.parentElement.id.replace(/-hint$/, ""));
    const now = field.type === "checkbox" ? String(field.checked) : field.value;
    was.hidden = now === was.dataset.was;
    count += !was.hidden;
  }
  part.querySelector("output").textContent = count ? part.dataset.changes.replace("{n}", count) : "";
}

for (const kind of ["input", "hub-opened"]) document.addEventListener(kind, show);
show();
