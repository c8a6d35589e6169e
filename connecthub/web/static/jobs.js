// Lists and pages of Jobs: switches that ask first, and the bar for many at once.
import { openDialog } from "./dialog.js";
import "./run_now.js";

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.matches("#bulk")) {
    // form.id and form.action would be its inputs of these names.
    event.preventDefault();
    const query = new URLSearchParams(new FormData(form));
    query.set("action", event.submitter?.value ?? "");
    openDialog(`${form.getAttribute("action")}?${query}`);
  } else if (form.dataset.confirm) {
    event.preventDefault();
    openDialog(form.dataset.confirm);
  }
});

const bar = document.querySelector(".hub-bulk");
if (bar) {
  const count = bar.querySelector("[data-count]");
  const show = () => {
    const ticked = document.querySelectorAll("input[name=id]:checked").length;
    const all = bar.querySelector("input[name=all]")?.checked;
    bar.hidden = !ticked && !all;
    count.textContent = count.dataset.count.replace("{n}", ticked);
  };
  document.addEventListener("change", show);
  addEventListener("pageshow", show);
  show();
}

// What was said about the last action is no part of the address that is reloaded or passed on.
const address = new URL(location.href);
if (address.searchParams.has("said")) {
  for (const name of ["said", "n", "undo"]) address.searchParams.delete(name);
  history.replaceState(null, "", address);
}
