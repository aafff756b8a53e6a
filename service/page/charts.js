// Plotly, larger than all the rest of the page: read once the browser has nothing else to do, so that heights come first.

import { el } from "./dom.js";

const LONGEST_MS = 3000;
// Safari has no idle callback.
const idle = window.requestIdleCallback ?? ((then) => setTimeout(then));

const read = () => new Promise((resolve, reject) => {
  const refuse = () => reject(new Error("the charts could not be loaded: reload the page"));
  document.head.append(el("script", { src: "/assets/plotly.min.js", onload: () => resolve(window.Plotly), onerror: refuse }));
});

/** Resolves to Plotly; rejects with a sentence for the operator. */
export const plotly = new Promise((resolve) => idle(resolve, { timeout: LONGEST_MS })).then(read);
