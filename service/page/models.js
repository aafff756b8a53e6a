// Model sets: which are installed and what their cards say, which is in use, another one, and one beside another.

import { $, attempt, el, permit, setText } from "./dom.js";
import { recordedFrame } from "./recorded.js";
import { call, get, post } from "./socket.js";
import { showProgress, untilOver } from "./tasks.js";
import { digits, length } from "./units.js";

/** What the cards say that an operator chooses by: part, figure, text of its value. */
const FIGURES = [
  ["slopes", "error_deg", (value) => `slopes ± ${digits(value, 2)}°`],
  ["slopes", "error_vs_classical", (value) => `${digits(value, 2)} of classical`],
  ["slopes", "within_sigma", (value) => `${digits(100 * value, 2)} % within σ`],
  ["rerender", "rms_pct", (value) => `re-renders to ${digits(value, 2)} % of flat`],
];
const FIXED = "this service cannot change its model set while it runs: set [inference] model and start it anew";

export class ModelsCard {
  constructor(page) {
    this.page = page;
    this.line = $("models-line");
    this.sets = [];
    this.seen = null;
    $("models-back").onclick = () => this.change("/models:rollback");
    $("models-compare").onclick = () => this.compare();
    $("models-off").onclick = () => attempt(this.line, () => call("DELETE", `/tasks/${this.task}`), "calling off …");
  }

  show({ models, workers }, looksOn) {
    const active = models?.active ?? workers[0]?.model ?? null;
    setText($("models-now"), active ?? "no worker");
    this.looksOn = looksOn;
    const seen = JSON.stringify([models, active]);
    if (seen !== this.seen) this.load(seen);
    this.permit();
  }

  async load(seen) {
    this.seen = seen;
    try {
      this.sets = await get("/models");
    } catch (error) {
      this.seen = error.status ? seen : null;
      this.sets = [];
      setText($("models-why"), error.status ? FIXED : error.message);
    }
    const changeable = this.sets.some((set) => "in_use" in set);
    if (this.sets.length) setText($("models-why"), changeable ? "" : FIXED);
    $("models-row").hidden = !changeable;
    $("models-list").replaceChildren(...this.sets.map((set) => this.entry(set, changeable)));
    this.permit();
  }

  entry(set, changeable) {
    const figures = FIGURES.map(([part, name, text]) => [set.parts?.[part]?.figures?.[name], text])
      .filter(([value]) => Number.isFinite(value)).map(([value, text]) => text(value));
    const use = () => this.change("/models:use", { name: set.name });
    return el("li", { title: set.description },
      el("b", {}, set.name),
      el("span", { class: "note" }, set.in_use ? "in use" : set.before ? "before" : ""),
      changeable ? el("button", { "aria-label": `Use ${set.name}`, "data-in-use": set.in_use, onclick: use }, "Use") : null,
      el("span", { class: "note figures" }, figures.join(" · ") || "nothing learned"));
  }

  permit() {
    const busy = this.looksOn || (this.changing ? "another set is being loaded" : "");
    for (const button of $("models-list").querySelectorAll("button")) {
      permit([button], busy || (button.hasAttribute("data-in-use") ? "this set is in use" : ""));
    }
    permit([$("models-back")], busy || (this.sets.some((set) => set.before) ? "" : "no other set was in use before"));
    permit([$("models-compare")], this.sets.length < 2 ? "only one set is installed" : this.task ? "a comparison is under way" : "");
  }

  /** Workers load and try the set before they go over to it; frames go on meanwhile. */
  async change(path, body) {
    this.changing = true;
    this.permit();
    setText(this.line, "loading and trying it on the newest frame …");
    await attempt(this.line, () => post(path, body), (told) => `in use: ${told.active ?? body?.name ?? "the set before"}`);
    this.changing = false;
    await this.load(this.seen);
  }

  async compare() {
    await attempt(this.line, async () => {
      const { runId, sequence } = await recordedFrame(this.page), names = this.sets.map((set) => set.name);
      const begun = await post("/models:compare", { names, run_id: runId, sequence });
      this.task = begun.id;
      this.showTask(true);
      const over = await untilOver(begun, (task) => showProgress($("models-progress"), task));
      if (over.state === "cancelled") return "called off";
      if (over.state === "failed") throw new Error(over.reason);
      this.draw(over.result);
      return `frame ${sequence} of ${runId}`;
    }, (told) => told);
    this.task = null;
    this.showTask(false);
  }

  showTask(on) {
    $("models-progress").hidden = $("models-off").hidden = !on;
    this.permit();
  }

  draw({ sets, apart_m: apart }) {
    const rows = Object.entries(sets).map(([name, { chi2, seconds, accuracy }]) => el("tr", {}, el("th", { scope: "row" }, name),
      el("td", {}, digits(chi2, 2)), el("td", {}, `${digits(1000 * seconds)} ms`),
      el("td", {}, accuracy ? `${digits(accuracy.slope_error_deg, 2)}°` : "–"), el("td", {}, accuracy ? length(accuracy.height_error_m, 2) : "–")));
    const head = ["set", "χ²", "time", "slope error", "height error"].map((text) => el("th", { scope: "col" }, text));
    const lie = Object.entries(apart).map(([pair, metres]) => `${pair.replace(" ", " and ")} ${length(metres, 2)} apart`).join(" · ");
    $("models-table").replaceChildren(el("caption", { class: "note" }, lie), el("tr", {}, ...head), ...rows);
  }
}
