// Confirmations, which are pages of their own, in a dialog over the page that leads to them.

export async function openDialog(url) {
  const answer = await fetch(url, { headers: { Accept: "text/html" } }).catch(() => null);
  const page = new DOMParser().parseFromString((await answer?.text()) ?? "", "text/html");
  const part = page.querySelector("[data-dialog-part]");
  if (!part) {
    location.assign(url);
    return;
  }
  const dialog = document.createElement("dialog");
  dialog.className = "hub-dialog hub-fetched";
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
  dialog.dispatchEvent(new CustomEvent("hub-opened", { bubbles: true }));
}

document.addEventListener("click", (event) => {
  const link = event.target.closest('a[data-dialog=""]');
  if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    openDialog(link.href);
  }
});

// A second click while the first is under way does nothing.
document.addEventListener("submit", (event) => {
  if (event.target.method !== "post") return;
  setTimeout(() => {
    if (event.defaultPrevented) return;
    for (const button of event.target.querySelectorAll("button:enabled")) {
      button.disabled = true;
      button.dataset.sent = "";
    }
  });
});
// A page that comes back from the browser's cache can be used again.
addEventListener("pageshow", (event) => {
  if (event.persisted) document.querySelectorAll("button[data-sent]").forEach((button) => (button.disabled = false));
});
