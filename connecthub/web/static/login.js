// The browser's zone goes with the log-in; the password can be looked at.
document.getElementById("timezone").value = Intl.DateTimeFormat().resolvedOptions().timeZone ?? "";
const password = document.getElementById("password");
const show = document.getElementById("show");
show.hidden = false;
show.addEventListener("click", () => {
  const shown = password.type === "password";
  password.type = shown ? "text" : "password";
  show.setAttribute("aria-pressed", String(shown));
});
