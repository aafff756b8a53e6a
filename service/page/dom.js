// Small tools for the document: find, build, set; and the one way in which an action's failure is told.

export const $ = (id) => document.getElementById(id);

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

// Writing only what differs keeps the layout and screen readers quiet.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setClass(node, name, on) {
  if (node.classList.contains(name) !== Boolean(on)) node.classList.toggle(name, Boolean(on));
}

/** Disable a control and say why, both to the eye (`line`) and to assistive technology. */
export function permit(controls, reason, line) {
  for (const control of controls) {
    if (control.disabled !== Boolean(reason)) control.disabled = Boolean(reason);
    if (control.title !== reason) control.title = reason;
  }
  if (line) setText(line, reason);
}

const attempts = new WeakMap();

/** Run an action; show what went wrong in `line`, where the user acted. Resolves to whether it succeeded. */
export async function attempt(line, action, done = "") {
  const begun = (attempts.get(line) ?? 0) + 1;
  attempts.set(line, begun);
  setText(line, "");
  line.classList.remove("wrong");
  try {
    const answer = await action();
    // What was begun later has the line: a late success must not wipe its refusal away.
    if (attempts.get(line) === begun) setText(line, typeof done === "function" ? done(answer) : done);
    return true;
  } catch (error) {
    line.classList.add("wrong");
    setText(line, error.message);
    return false;
  }
}

/** How much larger than on a small screen everything drawn by hand must be: the style sheet's type grows with the screen. */
export function typeScale() {
  // To ask the browser makes it lay out anew what was written before.
  return (scale ??= parseFloat(getComputedStyle(document.documentElement).fontSize) / 12.5);
}

let scale = null;
addEventListener("resize", () => (scale = null));

export function typing(event) {
  return event.target instanceof Element && event.target.closest("input, select, textarea, button, summary, dialog");
}

export function saveFile(name, text, type) {
  const link = el("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
