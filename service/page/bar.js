// The top bar: what an operator decides by in five seconds.

import { $, attempt, el, setClass, setText } from "./dom.js";
import { post } from "./socket.js";
import { bytes, celsius, digits, duration } from "./units.js";

const STALE_AFTER_S = 2.0;
const LITTLE_DISK_H = 1;

export class Bar {
  constructor(page) {
    this.page = page;
    $("stop-all").onclick = () => this.stopAll();
    setInterval(() => this.showAge(), 100);
  }

  async stopAll() {
    const told = (answer) => (answer.unverified?.length
      ? `NOT verified safe: ${answer.unverified.join("; ")}`
      : "safe state verified: laser off, gas off, scan at rest");
    const line = document.createElement("span");
    setText($("stop-all"), "STOPPING…");
    await attempt(line, () => post("/safe-state"), told);
    setText($("stop-all"), "STOP ALL");
    const wrong = line.classList.contains("wrong") || line.textContent.startsWith("NOT");
    this.page.banner.tell(line.textContent, wrong ? "wrong" : "calm", wrong ? 0 : 8000);
  }

  show(status) {
    const { run, disk, devices } = status;
    const recording = Boolean(run?.recording);
    const seconds = run ? (status.utc_ns - run.started_utc_ns) / 1e9 : 0;
    setText($("bar-record"), recording ? `REC ${duration(seconds)} ${run.run_id}` : "not recording");
    setClass($("bar-record"), "on", recording);
    $("bar-record").title = run?.path ?? "";
    setText($("bar-drops"), String(status.drops?.skipped ?? 0));
    const hours = disk.hours_left;
    setText($("bar-disk"), hours == null ? bytes(disk.free_bytes) : `${digits(hours, 2)} h`);
    setClass($("bar-disk").parentElement, "warn", hours != null && hours < LITTLE_DISK_H);
    $("bar-disk").parentElement.title = `${bytes(disk.free_bytes)} free in ${disk.folder}`;
    setText($("bar-dose"), `${digits(status.dose_electrons_per_nm2)} e/nm²`);
    const { drift_x_px: x, drift_y_px: y, frames_held: held } = status.figures;
    $("bar-drift").parentElement.hidden = held == null;
    if (held != null) setText($("bar-drift"), `${x.toFixed(2)}, ${y.toFixed(2)} px · ${digits(held, 2)} held`);
    this.showReading("bar-temperature", devices, "pyrometer", "temperature_k", (kelvin) => `${celsius(kelvin).toFixed(0)} °C`, "– °C");
    this.showReading("bar-pressure", devices, "pressure_gauge", "pressure_pa", (pascal) => `${digits(pascal)} Pa`, "– Pa");
    const worker = status.workers[0];
    setText($("bar-provider"), worker ? worker.provider : "NO WORKER");
    $("bar-provider").title = worker ? `heights by model set ${worker.model}` : "no inference program asks for frames: start `eclips infer`";
    setClass($("bar-provider").parentElement, "warn", !worker);
  }

  showReading(id, devices, kind, quantity, text, none) {
    const device = Object.values(devices).find((one) => one.kind === kind);
    const reading = device?.readings[quantity];
    $(id).parentElement.hidden = !device;
    setText($(id), reading?.valid ? text(reading.value) : none);
    $(id).title = reading?.reason ?? "";
    setClass($(id).parentElement, "warn", device && !device.connected);
  }

  showAge() {
    const { live, status, replaying } = this.page, item = $("bar-live");
    const age = live ? live.frame.age_s + (performance.now() - this.page.liveAt) / 1000 : null;
    const acquiring = status?.state === "acquiring";
    const stale = acquiring && !this.page.frozen && !replaying && (age === null || age > STALE_AFTER_S);
    const shown = age === null ? "–" : `${age < 10 ? age.toFixed(2) : age.toFixed(0)} s`;
    const word = this.page.lost ? "LOST" : this.page.frozen ? "FROZEN" : replaying ? "REPLAY" : stale ? "STALE" : acquiring ? "LIVE" : "IDLE";
    setText(item, replaying && !this.page.frozen ? word : `${word} ${shown}`);
    setClass(item, "warn", stale || this.page.frozen || replaying);
    setClass(item, "wrong", this.page.lost);
    setClass(document.body, "stale", stale || this.page.lost);
  }
}

/** The strip under the bar: what the operator must know now, and how it goes away. */
export class Banner {
  constructor() {
    this.strip = $("banner");
    this.standing = new Map();
    this.timer = 0;
  }

  /** A message that stays until `clear(key)`. */
  hold(key, text, kind = "wrong") {
    if (this.standing.get(key)?.text === text) return;
    this.standing.set(key, { text, kind });
    this.show();
  }

  clear(key) {
    if (this.standing.delete(key)) this.show();
  }

  /** A message that goes by itself after `ms`, or stays until the next when 0. */
  tell(text, kind = "calm", ms = 8000) {
    this.standing.set("told", { text, kind });
    this.show();
    clearTimeout(this.timer);
    if (ms) this.timer = setTimeout(() => this.clear("told"), ms);
  }

  show() {
    const entries = [...this.standing.values()];
    this.strip.hidden = !entries.length;
    this.strip.replaceChildren(...entries.map(({ text, kind }) => el("p", { class: kind }, text)));
  }
}
