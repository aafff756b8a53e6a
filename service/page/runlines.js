// Long work on a recorded run, a line under its row each: export, report and tracking, followed, called off, its fruit.

import { attempt, el, setText } from "./dom.js";
import { call, get, post } from "./socket.js";
import { isUnderWay, showProgress, untilOver } from "./tasks.js";
import { bytes, digits, length, lengthUnit, percent, withSigma } from "./units.js";

const FORMATS = [
  ["zip", "zip: the folder as it is"], ["npz", "npz: heights as arrays"], ["npy", "npy: heights, one array"],
  ["tiff", "tiff: heights as pages"], ["ome-tiff", "OME-TIFF: with units"], ["ome-zarr", "OME-Zarr, zipped"],
  ["gwy", "gwy: Gwyddion"], ["gsf", "gsf: the last height"], ["stl", "stl: the last height"], ["ply", "ply: the last height"],
  ["mp4", "mp4: a film"],
];
const CALLING_OFF = "calling off …";

/** The open lines of all rows. A line is kept while its row is drawn anew: what is pressed in it must not go away. */
export class RunLines {
  constructor() {
    this.lines = new Map();
  }

  /** What is open under a run: kinds, and nodes in the order in which they were opened. */
  kinds(runId) {
    return this.of(runId).map((line) => line.kind);
  }

  nodes(runId) {
    return this.of(runId).map((line) => line.node);
  }

  of(runId) {
    return [...this.lines.values()].filter((line) => line.runId === runId);
  }

  /** Open a run's line of a kind, or close it when nothing is under way in it. */
  toggle(kind, run) {
    const key = `${kind} ${run.run_id}`, line = this.lines.get(key);
    if (!line) this.open(kind, run).begin();
    else if (!line.underWay) this.lines.delete(key);
  }

  open(kind, run) {
    const line = new KINDS[kind](kind, run);
    this.lines.set(`${kind} ${run.run_id}`, line);
    return line;
  }

  /** What was asked for before the page was loaded shows again. */
  async resume(runs) {
    for (const task of await get("/tasks")) {
      const run = task.kind in KINDS && runs.find((one) => one.run_id === task.run_id);
      if (!run || this.kinds(run.run_id).includes(task.kind) || !isUnderWay(task)) continue;
      this.open(task.kind, run).follow(task);
    }
  }
}

class Line {
  constructor(kind, { run_id: runId }, ...controls) {
    this.kind = kind;
    this.runId = runId;
    this.underWay = null;
    this.controls = controls;
    this.bar = el("progress", { "aria-label": `${capital(kind)} of ${runId}`, max: 1, hidden: true });
    this.off = el("button", { "aria-label": `Call off the ${kind} of ${runId}`, hidden: true, onclick: () => this.callOff() }, "Call off");
    this.file = el("a", { hidden: true, download: true }, "Save");
    this.told = el("span", { class: "note grow", role: "status", "aria-label": `${capital(kind)} message of ${runId}` });
    this.node = el("div", { class: "export" }, ...controls, this.bar, this.told, this.file, this.off);
  }

  get path() {
    return `/runs/${encodeURIComponent(this.runId)}`;
  }

  begin() {}

  async start(path, body) {
    let task = null;
    this.show(true);
    if (await attempt(this.told, async () => (task = await post(path, body)))) await this.follow(task, true);
    else this.show(false);
  }

  callOff() {
    return attempt(this.told, () => call("DELETE", `/tasks/${this.underWay}`), CALLING_OFF);
  }

  /** Until the task is over; a file that was asked for here is saved at once. */
  async follow(task, asked = false) {
    this.underWay = task.id;
    this.show(true);
    task = await untilOver(task, (now) => this.progress(now));
    this.underWay = null;
    this.show(false);
    this.told.classList.toggle("wrong", task.state === "failed");
    if (task.state === "done") await this.done(task, asked);
    else setText(this.told, task.state === "cancelled" ? "called off; nothing is kept" : task.reason);
  }

  progress(task) {
    showProgress(this.bar, task);
    if (this.told.textContent === CALLING_OFF) return;
    const share = task.total ? percent(task.done / task.total) : "beginning";
    setText(this.told, task.state === "waiting" ? "waiting for its turn" : share);
  }

  done(task, save) {
    this.file.href = `/api/v1/tasks/${task.id}/file`;
    this.file.hidden = false;
    setText(this.told, `${task.result.file.split(".").at(-1)} · ${bytes(task.result.bytes)}`);
    if (save) this.file.click();
  }

  show(underWay) {
    for (const control of this.controls) control.hidden = underWay;
    this.bar.hidden = this.off.hidden = !underWay;
    if (underWay) this.file.hidden = true;
  }
}

class ExportLine extends Line {
  constructor(kind, run) {
    const format = el("select", { "aria-label": `Format of ${run.run_id}` }, ...FORMATS.map(([value, text]) =>
      el("option", { value, disabled: value !== "zip" && !run.heights }, run.heights || value === "zip" ? text : `${value}: no heights yet`)));
    const make = () => this.start(`${this.path}/export`, { format: format.value });
    super(kind, run, format, el("button", { "aria-label": `Make the file of ${run.run_id}`, onclick: make }, "Make file"));
  }
}

class ReportLine extends Line {
  begin() {
    return this.start(`${this.path}:report`);
  }
}

class TrackLine extends Line {
  constructor(kind, run) {
    super(kind, run, el("button", { "aria-label": `Track ${run.run_id} again`, onclick: () => this.start(`${this.path}:track`) }, "Again"));
  }

  /** What was found before is shown; a run that has not been tracked, or has other heights since, is tracked now. */
  async begin() {
    const found = await get(`${this.path}/track`).catch(() => null);
    if (found?.current) setText(this.told, trackText(found));
    else await this.start(`${this.path}:track`);
  }

  done() {
    return attempt(this.told, () => get(`${this.path}/track`), trackText);
  }
}

const KINDS = { export: ExportLine, report: ReportLine, track: TrackLine };
const capital = (word) => word[0].toUpperCase() + word.slice(1);

/** Tracking in a few numbers: drift, step velocity, spirals, activation energy. */
function trackText({ frames, step_velocity: velocity, spirals, kinetics }) {
  const { drift } = frames.at(-1), away = Math.hypot(drift.x_m, drift.y_m), unit = lengthUnit(away);
  const error = Math.hypot(drift.x_m * drift.x_error_m, drift.y_m * drift.y_error_m) / (away || 1);
  const parts = [`drift ${withSigma(away * unit.factor, error * unit.factor, unit.name)} over ${frames.length} frames`];
  const { value, sigma } = weightedMean(velocity.value_m_per_s, velocity.error_m_per_s);
  const speed = lengthUnit(Math.max(Math.abs(value), sigma));
  parts.push(Number.isFinite(value)
    ? `step velocity ${withSigma(value * speed.factor, sigma * speed.factor, speed.name)}/s`
    : "step velocity not known");
  parts.push(spirals.length ? `${spirals.length} spiral${spirals.length === 1 ? "" : "s"}: ${spirals.slice(0, 3).map(spiralText).join(", ")}` : "no spirals");
  if (kinetics.energy_ev != null) parts.push(`activation energy ${withSigma(kinetics.energy_ev, kinetics.energy_error_ev, "eV")}`);
  return parts.join(" · ");
}

function spiralText({ sense, pitch_m: pitch, rotation_rad_per_s: rate, rotation_error_rad_per_s: error }) {
  const turning = rate == null ? "" : ` at ${withSigma(rate, error ?? NaN, "rad/s")}`;
  return `${typeof sense === "number" ? digits(sense, 1) : sense}${pitch == null ? "" : ` pitch ${length(pitch)}`}${turning}`;
}

function weightedMean(values, errors) {
  const known = values.map((value, i) => ({ value, weight: errors[i] ** -2 })).filter(({ value, weight }) => value != null && Number.isFinite(weight));
  const weights = known.reduce((sum, { weight }) => sum + weight, 0);
  return { value: known.reduce((sum, { value, weight }) => sum + value * weight, 0) / weights, sigma: weights ** -0.5 };
}
