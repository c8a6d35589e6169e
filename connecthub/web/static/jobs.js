// Lists and pages of Jobs: confirmations in a dialog instead of a page of their own, and the bar for many at once.

async function openDialog(url) {
  const answer = await fetch(url, { headers: { Accept: "text/html" } });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const part = page.querySelector("[data-dialog-part]");
  if (!part) {
    location.assign(url);
    return;
  }
  const dialog = document.createElement("dialog");
  dialog.className = "hub-dialog";
  dialog.append(document.importNode(part, true));
  document.body.append(dialog);
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target.closest("[data-close]")) {
      event.preventDefault();
      dialog.close();
    }
  });
  dialog.showModal();
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-dialog]");
  if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    openDialog(link.href);
  }
});

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
  } else if (form.method === "post") {
    // A second click while the first is under way does nothing.
    setTimeout(() => form.querySelectorAll("button").forEach((button) => (button.disabled = true)));
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
