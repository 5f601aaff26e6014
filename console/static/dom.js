// Elements, made without ever parsing text as HTML. Everything shown goes through here as text.

/** h("p.note", {title: "…", onclick: f}, "text", node): attributes are set, on… are listeners, children are text or nodes. */
export function h(what, attributes = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const node = document.createElement(tag || "div");
  if (classes.length) node.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key in PROPERTIES) node[key] = value;
    else node.setAttribute(key, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}
const PROPERTIES = { value: 1, checked: 1, disabled: 1, hidden: 1 };

const SVG = "http://www.w3.org/2000/svg";
export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, String(value));
  node.append(...children);
  return node;
}

// Control characters, and the marks that turn the direction of what follows, shown as what they are.
// eslint-disable-next-line no-control-regex
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
const NAME_MAX = 500; // characters of a name that are put on the page; CSS cuts what does not fit

/** A name from outside as one safe run of text: no controls, no direction marks. */
export function plain(name) {
  return String(name ?? "").slice(0, NAME_MAX).replace(UNSEEN, "·");
}

/** A name from outside, isolated so that it cannot turn around what stands beside it. */
export const bdi = (name, what = "bdi") => h(what, { dir: "auto", title: plain(name) }, plain(name));

/** Sets text only where it changed: a tick must not make the browser lay out what stayed the same. */
export function say(node, text) {
  text = String(text);
  if (node.firstChild?.nodeType === 3 && node.childNodes.length === 1) {
    if (node.firstChild.data !== text) node.firstChild.data = text;
  } else node.textContent = text;
}

export const $ = (id) => document.getElementById(id);
