// Running now with other parameters: says beside each field what it was, and beside the button how many differ.
import "./json_editor.js";

function show() {
  const told = document.querySelector("[data-changes]");
  if (!told) return;
  let count = 0;
  for (const was of document.querySelectorAll("[data-was]")) {
    const field = document.getElementById(was.parentElement.id.replace(/-hint$/, ""));
    const now = field.type === "checkbox" ? String(field.checked) : field.value;
    was.hidden = now === was.dataset.was;
    count += !was.hidden;
  }
  told.textContent = count ? told.dataset.changes.replace("{n}", count) : "";
}

for (const kind of ["input", "hub-opened"]) document.addEventListener(kind, show);
show();
