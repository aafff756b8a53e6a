// The calibration wizard: runs chosen with what they show, parameters watched as their errors shrink, kept or not.

import { $, attempt, el, permit, setText } from "./dom.js";
import { partsOf } from "./recordings.js";
import { call, get, post } from "./socket.js";
import { isUnderWay, showProgress, untilOver } from "./tasks.js";
import { digits, lengthUnit, withSigma } from "./units.js";

const USES = [["ordinary", "any surface"], ["sample", "known sample"], ["dark", "beam blanked"], ["pairs", "still scene"]];
const SAMPLES = "flat:tilt_x=10deg, grating:pitch=2um,depth=200nm, vickers:hv_angle=136deg";
const HISTORY = 4;

export class CalibrationCard {
  constructor(page) {
    this.page = page;
    this.line = $("calibration-line");
    this.choices = [];
    this.candidate = null;
    this.first = null;
    $("calibration-add").onclick = () => this.add();
    $("calibration-start").onclick = () => this.start();
    $("calibration-off").onclick = () => attempt(this.line, () => call("DELETE", `/tasks/${this.task}`), "calling off …");
    $("calibration-accept").onclick = () => this.decide("accept");
    $("calibration-discard").onclick = () => this.decide("discard");
    $("calibration").ontoggle = () => $("calibration").open && this.load();
    this.add();
  }

  /** The newest calibrations; one that nobody decided on yet is shown again, and one at work is followed. */
  load() {
    return attempt(this.line, async () => {
      await this.loadHistory();
      const [going] = this.task ? [] : (await get("/tasks")).filter((task) => task.kind === "calibration" && isUnderWay(task));
      if (going) this.follow(going);
    });
  }

  async loadHistory() {
    const [newest, ...before] = await get("/calibrations");
    if (newest?.state === "candidate" && !this.task) this.showCandidate(newest);
    const rows = [newest, ...before].filter(Boolean).slice(0, HISTORY).map(({ id, state, calibration }) =>
      el("li", { title: id }, `${calibration?.date.slice(0, 16).replace("T", " ") ?? id} · ${state}`));
    $("calibration-history").replaceChildren(...rows);
  }

  add() {
    const number = this.choices.length + 1;
    const run = el("select", { class: "wide", "aria-label": `Run ${number} to calibrate on` });
    const use = el("select", { "aria-label": `What run ${number} shows`, onchange: () => (sample.hidden = use.value !== "sample") },
      ...USES.map(([value, text]) => el("option", { value }, text)));
    const sample = el("input", { "aria-label": `Sample of run ${number}`, placeholder: SAMPLES, title: SAMPLES, hidden: true, autocomplete: "off" });
    this.choices.push({ run, use, sample });
    $("calibration-runs").append(el("div", { class: "row" }, run, use), sample);
    this.offer(run);
  }

  offer(select) {
    const chosen = select.value, runs = (this.page.runs ?? []).filter((run) => run.frames > 0 && run.status !== "recording");
    select.replaceChildren(el("option", { value: "" }, "no run"), ...runs.map((run) => el("option", { value: run.run_id }, nameAndTime(run.run_id))));
    select.value = runs.some((run) => run.run_id === chosen) ? chosen : "";
  }

  show(status, looksOn) {
    const seen = JSON.stringify(this.page.runs?.map(({ run_id: id, status: state, frames }) => [id, state, frames]));
    if (seen !== this.seen) this.choices.forEach(({ run }) => this.offer(run));
    this.seen = seen;
    permit([$("calibration-start"), $("calibration-add")], this.task ? "a calibration is under way" : "");
    permit([$("calibration-accept")], looksOn);
  }

  /** What the chosen rows say, as the service wants it. Throws where two of them are meant to be the one dark or pairs run. */
  wanted() {
    const wanted = { runs: [], samples: {} };
    for (const { run, use, sample } of this.choices.filter(({ run }) => run.value)) {
      if (["ordinary", "sample"].includes(use.value)) wanted.runs.push(run.value);
      else if (wanted[use.value]) throw new Error(`two runs are chosen as "${USES.find(([name]) => name === use.value)[1]}": one will do`);
      else wanted[use.value] = run.value;
      if (use.value === "sample" && !sample.value.trim()) throw new Error(`say what the sample of ${run.value} is, such as flat:tilt_x=10deg`);
      if (use.value === "sample") wanted.samples[run.value] = sample.value.trim();
    }
    return wanted;
  }

  async start() {
    let task = null;
    const begun = await attempt(this.line, async () => {
      const wanted = this.wanted();
      this.showCandidate(null);
      task = await post("/calibrations", wanted);
    }, "beginning …");
    if (begun) await this.follow(task);
  }

  async follow(task) {
    this.task = task.id;
    this.first = null;
    this.showTask(true);
    task = await untilOver(task, (now) => this.progress(now));
    this.task = null;
    this.showTask(false);
    await attempt(this.line, async () => {
      if (task.state === "failed") throw new Error(task.reason);
      if (task.state === "done") this.showCandidate(task.result);
      await this.loadHistory();
    }, task.state === "cancelled" ? "called off; nothing is kept" : "");
  }

  progress(task) {
    showProgress($("calibration-progress"), task);
    const step = task.result?.step;
    if (!step) return;
    this.first ??= step.sigmas;
    setText(this.line, `step ${step.step} · ${chi2Text(step.reduced_chi2)}`);
    this.draw(Object.entries(step.values).map(([label, value]) => ({ label, value, sigma: step.sigmas[label], of: this.first[label] })));
  }

  /** One row a number, its error as a bar of what it was before the frames. */
  draw(rows) {
    $("calibration-table").replaceChildren(
      ...(rows.length ? [el("tr", {}, ...["number", "value", "error left"].map((text) => el("th", { scope: "col" }, text)))] : []),
      ...rows.map(({ label, value, sigma, of, loose }) => {
        const left = Math.min(1, of > 0 ? sigma / of : 1);
        return el("tr", { class: loose ? "loose" : "" }, el("th", { scope: "row" }, nameOf(label)), el("td", {}, numberText(label, value, sigma)),
          el("td", {}, el("span", { class: "left", title: `${digits(100 * left, 2)} %` }, el("span", { style: `width:${(100 * left).toFixed(1)}%` }))));
      }));
  }

  showCandidate(entry) {
    this.candidate = entry;
    $("calibration-decision").hidden = !entry;
    setText($("calibration-words"), entry ? inWords(entry.calibration) : "");
    this.draw(Object.entries(entry?.calibration.parameters ?? {}).map(([label, { value, sigma, prior_sigma: of, identifiable }]) =>
      ({ label, value, sigma, of, loose: !identifiable })));
  }

  async decide(what) {
    const { id } = this.candidate;
    const good = await attempt(this.line, () => post(`/calibrations/${id}:${what}`), (told) =>
      what === "accept" ? `accepted: it counts from ${told.from ?? "the next start of the acquisition program"} on` : "discarded; it stays in the history");
    if (!good) return;
    $("calibration-decision").hidden = true;
    this.loadHistory().catch(() => {}); // the banner already says when the service does not answer
  }

  showTask(on) {
    $("calibration-progress").hidden = $("calibration-off").hidden = !on;
    setText($("calibration-now"), on ? "at work" : "");
  }
}

function nameAndTime(runId) {
  const { name, when } = partsOf(runId);
  return [name, when].filter(Boolean).join(" · ");
}

const chi2Text = (chi2) => Object.entries(chi2).map(([run, value]) => `${nameAndTime(run)}: χ² ${digits(value)}`).join(", ");

/** What the frames pinned and what they did not, how well they are explained, and the notes of the fit. */
function inWords({ parameters, reduced_chi2: chi2, notes }) {
  const loose = Object.entries(parameters).filter(([, one]) => !one.identifiable).map(([label]) => nameOf(label));
  const all = Object.keys(parameters).length, pinned = `${all - loose.length} of ${all} numbers are pinned by these runs`;
  const rest = loose.length ? `; not ${loose.join(", ")}, near what was known before: add a known sample, beam-blanked or still frames` : "";
  const explained = Object.keys(chi2).length ? ` ${chi2Text(chi2)} (1: explained to the noise).` : "";
  return `${pinned}${rest}.${explained}${notes.map((note) => ` ${note[0].toUpperCase()}${note.slice(1)}.`).join("")}`;
}

const UNITS = [["_counts_per_electron", "counts/e"], ["_counts", "counts"], ["_deg", "°"], ["_px", "px"], ["_m", "m"]];
const unitOf = (label) => UNITS.find(([ending]) => label.replace(/\[.*/, "").endsWith(ending)) ?? ["", ""];

function nameOf(label) {
  const [name, index = ""] = label.split(/(?=\[)/);
  return `${name.slice(0, name.length - unitOf(label)[0].length).replaceAll("_", " ")} ${index.replace(/[[\]]/g, "")}`.trim();
}

function numberText(label, value, sigma) {
  const [, unit] = unitOf(label), scale = unit === "m" ? lengthUnit(Math.max(Math.abs(value), sigma)) : { factor: 1, name: unit };
  return withSigma(value * scale.factor, sigma * scale.factor, scale.name).trim();
}
