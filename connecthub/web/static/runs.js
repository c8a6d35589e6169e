// Dragging over the scatter picks a span of time.
import "./live.js";

const box = document.querySelector("[data-low]");
const svg = box?.querySelector("svg");
const LEFT = 0.01, WIDE = 0.98; // the share of the drawing that its times fill
let start = null, mark = null;

const share = (event) => {
  const { left, width } = svg.getBoundingClientRect();
  return Math.min(Math.max((event.clientX - left) / width, LEFT), LEFT + WIDE);
};
const moment = (at) => {
  const [low, high] = [box.dataset.low, box.dataset.high].map((text) => Date.parse(text));
  return new Date(low + ((at - LEFT) / WIDE) * (high - low)).toISOString().slice(0, 19) + "Z";
};

function end() {
  mark?.remove();
  start = mark = null;
}

svg?.addEventListener("pointerdown", (event) => {
  if (event.button || !event.isPrimary) return;
  start = share(event);
});
svg?.addEventListener("pointermove", (event) => {
  if (start === null) return;
  const at = share(event);
  if (!mark && Math.abs(at - start) * svg.clientWidth < 6) return; // a click on a point that shook
  if (!mark) {
    svg.setPointerCapture(event.pointerId);
    mark = svg.appendChild(document.createElementNS(svg.namespaceURI, "rect"));
    mark.setAttribute("class", "hub-m-drag");
    mark.setAttribute("height", "100%");
  }
  mark.setAttribute("x", `${Math.min(start, at) * 100}%`);
  mark.setAttribute("width", `${Math.abs(at - start) * 100}%`);
});
svg?.addEventListener("pointerup", (event) => {
  const dragged = mark && [start, share(event)].sort((a, b) => a - b);
  end();
  if (!dragged) return;
  const url = new URL(location.href);
  for (const name of ["span", "before", "after"]) url.searchParams.delete(name);
  url.searchParams.set("from", moment(dragged[0]));
  url.searchParams.set("to", moment(dragged[1]));
  location.assign(url);
});
svg?.addEventListener("pointercancel", end);
svg?.addEventListener("dragstart", (event) => event.preventDefault()); // links would be dragged instead
addEventListener("keydown", (event) => {
  if (event.key === "Escape") end();
});
