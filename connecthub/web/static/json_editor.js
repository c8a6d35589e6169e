// A textarea for JSON with line numbers, colours and its first error marked. The text lies, transparent, over a
// coloured copy of itself, so that input methods, undo and posting stay the browser's own.

const LARGE = 100000; // characters; beyond that a copy at every key would be felt
const TOKENS = /("(?:\\.|[^"\\\n])*")(\s*:)?|(-?\d[\d.eE+-]*)|(true|false|null)/g;
const VALUE = /true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const STRING = /"(?:\\(?:["\\/bfnrt]|u[\da-fA-F]{4})|[^"\\\u0000-\u001f])*"/y;

// The first error: where, and which sentence tells of it; null for good JSON.
export function firstError(text) {
  let at = 0;
  const fail = (key) => {
    throw { at: Math.min(at, text.length), key };
  };
  const blank = () => {
    while (" \t\n\r".includes(text[at] ?? "x")) at += 1;
  };
  const take = (pattern) => {
    pattern.lastIndex = at;
    if (!pattern.test(text)) return false;
    at = pattern.lastIndex;
    return true;
  };
  const list = (end, item) => {
    at += 1;
    blank();
    if (text[at] === end) return void (at += 1);
    for (;;) {
      item();
      blank();
      if (text[at] === end) return void (at += 1);
      if (text[at] !== ",") fail("comma");
      at += 1;
      blank();
    }
  };
  const member = () => {
    if (text[at] !== '"') fail("name");
    if (!take(STRING)) fail("text");
    blank();
    if (text[at] !== ":") fail("colon");
    at += 1;
    value();
  };
  const value = () => {
    blank();
    if (text[at] === "{") list("}", member);
    else if (text[at] === "[") list("]", value);
    else if (text[at] === '"') take(STRING) || fail("text");
    else take(VALUE) || fail("value");
  };
  try {
    value();
    blank();
    if (at < text.length) fail("end");
    return null;
  } catch (error) {
    if (error.key) return error;
    return { at: 0, key: "value" }; // nested beyond what a browser follows
  }
}

function colour(copy, text) {
  copy.textContent = "";
  let done = 0;
  for (const found of text.length > LARGE ? [] : text.matchAll(TOKENS)) {
    const [whole, string, colon] = found;
    const kind = string ? (colon ? "name" : "text") : found[3] ? "number" : "word";
    copy.append(text.slice(done, found.index));
    const part = document.createElement("span");
    part.className = `hub-json-${kind}`;
    part.textContent = string ?? whole;
    copy.append(part, colon ?? "");
    done = found.index + whole.length;
  }
  copy.append(text.slice(done), "\n");
}

function improve(area) {
  const box = document.createElement("div");
  const [copy, lines, says] = ["pre", "pre", "p"].map((tag) => document.createElement(tag));
  box.className = "hub-json";
  copy.className = "hub-json-copy";
  lines.className = "hub-json-lines";
  copy.ariaHidden = lines.ariaHidden = "true";
  says.className = "hub-json-says hub-error";
  says.setAttribute("aria-live", "polite");
  area.before(box);
  box.append(lines, copy, area);
  box.after(says);
  const words = document.getElementById("hub-json-words").dataset;

  function draw() {
    const text = area.value;
    const error = text.trim() ? firstError(text) : null;
    const before = error ? text.slice(0, error.at).split("\n") : [];
    colour(copy, text);
    lines.textContent = "";
    text.split("\n").forEach((_, index) => {
      const number = document.createElement("span");
      number.textContent = index + 1;
      if (index + 1 === before.length) number.className = "hub-json-bad";
      lines.append(number);
    });
    says.textContent = error
      ? words.at.replace("{line}", before.length).replace("{column}", before.at(-1).length + 1).replace("{what}", words[error.key])
      : "";
    follow();
  }
  const follow = () => {
    lines.scrollTop = copy.scrollTop = area.scrollTop;
    copy.scrollLeft = area.scrollLeft;
  };
  area.addEventListener("input", draw);
  area.addEventListener("scroll", follow);
  area.addEventListener("hub-set", draw); // a script gave it another text
  new ResizeObserver(follow).observe(area);
  draw();
}

function format(area) {
  if (firstError(area.value)) return; // the line below says where
  const text = JSON.stringify(JSON.parse(area.value), null, 2);
  area.focus();
  area.select();
  // As if typed, so that it can be undone; a browser that does not know this gets the text all the same.
  if (!document.execCommand("insertText", false, text)) area.value = text;
  area.dispatchEvent(new Event("hub-set"));
}

function improveAll() {
  for (const area of document.querySelectorAll("textarea[data-json]:not(.hub-json textarea)")) improve(area);
}
document.addEventListener("hub-opened", improveAll);
document.addEventListener("hub-swapped", improveAll);
document.addEventListener("click", (event) => {
  const name = event.target.closest("button[data-format]")?.dataset.format;
  if (name) format(document.getElementById(name));
});
improveAll();
