// The runs folder as a list, and the replay: open, scrub, step, leave.

import { $, attempt, el, permit, setClass, setText } from "./dom.js";
import { RunLines } from "./runlines.js";
import { get, post } from "./socket.js";
import { bytes } from "./units.js";

const REFRESH_MS = 3000;
/** Long work that a row offers: kind, name, what it is for. */
const WORKS = [
  ["export", "Export", "One file of it: the folder, or its heights"],
  ["report", "Report", "One HTML page of the whole run, which needs nothing else"],
  ["track", "Track", "Drift, steps, spirals and velocities over all its frames"],
];

export class Recordings {
  constructor(page) {
    this.page = page;
    this.line = $("runs-line");
    this.entries = new Map();
    this.dragging = false;
    this.verdicts = new Map();
    this.lines = new RunLines();
    const slider = $("replay-position");
    slider.oninput = () => {
      this.dragging = true;
      this.seek(Number(slider.value));
    };
    slider.onchange = () => (this.dragging = false);
    $("replay-back").onclick = () => this.step(-1);
    $("replay-forward").onclick = () => this.step(1);
    $("replay-end").onclick = () => attempt(this.line, () => post("/run:stop"), "replay ended");
    setInterval(() => document.hidden || this.refresh(), REFRESH_MS);
    this.refresh();
  }

  async refresh() {
    try {
      const first = !this.runs;
      this.runs = this.page.runs = await get("/runs");
      if (first) await this.lines.resume(this.runs);
      this.draw();
    } catch {
      return; // the banner already says that the service does not answer
    }
  }

  draw() {
    if (!this.runs) return;
    const { status, replaying } = this.page, live = status?.state === "acquiring" ? status.run : null;
    setText($("runs-note"), String(this.runs.length));
    const nodes = this.runs.map((run) => this.keptEntry(run, live, replaying));
    // Only what changed is touched: a row that is taken out and put back while it is pressed loses the press too.
    const list = $("runs"), wanted = new Set(nodes);
    for (const [index, node] of nodes.entries()) {
      const there = list.children[index];
      if (there === node) continue;
      if (there && !wanted.has(there)) there.replaceWith(node);
      else list.insertBefore(node, there ?? null);
    }
    while (list.children.length > nodes.length) list.lastChild.remove();
  }

  /** The row as it stands unless something about it changed: a row that is replaced while it is pressed loses the press. */
  keptEntry(run, live, replaying) {
    const state = JSON.stringify([run, replaying?.run_id, live?.run_id, this.page.status?.state, this.page.driver.reason, this.verdicts.get(run.run_id), this.lines.kinds(run.run_id)]);
    const kept = this.entries.get(run.run_id);
    if (kept?.state === state) return kept.node;
    const node = this.entry(run, live, replaying);
    this.entries.set(run.run_id, { state, node });
    return node;
  }

  entry(run, live, replaying) {
    const frames = `${run.frames} frame${run.frames === 1 ? "" : "s"}`;
    const side = `${run.shape.at(-1)} × ${run.shape.at(-2)} px`, { when, name } = partsOf(run.run_id);
    const details = [when, run.status, ...(run.status === "recording" ? [] : [frames, bytes(run.bytes)])].filter(Boolean).join(" · ");
    const picture = run.thumbnail ? el("img", { src: run.thumbnail, alt: "", loading: "lazy" }) : el("span", { class: "blank" });
    const busy = this.page.status?.state !== "idle" && !replaying;
    const why = this.page.driver.reason || (run.run_id === live?.run_id ? "this run is being recorded" : busy ? "stop the run first" : "");
    const open = el("button", { "aria-label": `Replay ${run.run_id}`, disabled: Boolean(why), title: why, onclick: () => this.open(run) }, "Open");
    const verify = el("button", { "aria-label": `Verify ${run.run_id}`, disabled: run.status === "recording", title: "Read every page and check every checksum", onclick: () => this.verify(run) }, "Verify");
    const works = WORKS.map(([kind, word, title]) => el("button", { "aria-label": `${word} ${run.run_id}`, disabled: run.status === "recording", title, onclick: () => {
      this.lines.toggle(kind, run);
      this.draw();
    } }, word));
    const verdict = this.verdicts.get(run.run_id);
    return el("li", { class: replaying?.run_id === run.run_id ? "playing" : "", title: [run.reason || run.notes || run.run_id, side].join(", ") },
      picture,
      el("span", { class: "name" }, name), open,
      el("span", { class: run.status === "incomplete" ? "details note warn" : "details note" }, details),
      el("span", { class: "works" }, verify, ...works),
      verdict ? el("span", { class: `told note ${verdict.ok ? "" : "wrong"}` }, verdict.text) : null,
      ...this.lines.nodes(run.run_id));
  }

  open(run) {
    return attempt(this.line, async () => {
      if (this.page.replaying) await post("/run:stop");
      const speed = $("replay-speed").value;
      await post("/replay", { run: run.run_id, speed, loop: true });
      if (speed === "step") await post("/replay:seek", { position: 0 });
    });
  }

  async verify(run) {
    this.verdicts.set(run.run_id, { ok: true, text: "verifying…" });
    this.draw();
    try {
      const found = await post(`/runs/${encodeURIComponent(run.run_id)}/verify`);
      const good = `verified: ${found.frames} frames and ${found.heights} heights are whole`;
      this.verdicts.set(run.run_id, { ok: found.ok, text: found.ok ? good : found.findings.join("; ") });
    } catch (error) {
      this.verdicts.set(run.run_id, { ok: false, text: error.message });
    }
    this.draw();
  }

  /** The newest wish wins: while one seek is on its way, only the last of those that follow is sent. */
  async seek(position) {
    this.wanted = position;
    if (this.seeking) return;
    this.seeking = true;
    while (this.wanted !== null) {
      const next = this.wanted;
      this.wanted = null;
      await attempt(this.line, () => post("/replay:seek", { position: next }));
    }
    this.seeking = false;
  }

  step(by) {
    const replay = this.page.replaying;
    if (!replay || this.page.driver.reason) return;
    this.seek(Math.min(replay.total - 1, Math.max(0, this.position(replay) + by)));
  }

  /** The service tells which position is next; what is seen is the one before, and before the first the last. */
  position(replay) {
    if (replay.position > 0) return Math.min(replay.total, replay.position) - 1;
    return this.page.status.run.frames > 0 ? replay.total - 1 : 0;
  }

  show(looksOn) {
    const replay = this.page.replaying;
    permit(["replay-back", "replay-forward", "replay-position", "replay-end"].map($), looksOn);
    // What is on the screen stays framed until something live replaces it, also after the replay has ended.
    setClass(document.body, "replay", replay || this.page.live?.replayed);
    $("scrubber").hidden = !replay;
    if (replay) {
      const at = this.position(replay);
      $("replay-position").max = replay.total - 1;
      if (!this.dragging) $("replay-position").value = at;
      setText($("replay-count"), `${at + 1} / ${replay.total}`);
      setText($("replay-name"), `${replay.run_id} · ${replay.speed === "step" ? "by hand" : `${replay.speed} ×`}`);
    }
    this.draw();
  }
}

/** `2026-11-21T05-14-30-192_name` reads better as a name, and day and time beside what else there is to tell. */
export function partsOf(runId) {
  const match = /^\d{4}-(\d\d)-(\d\d)T(\d\d)-(\d\d)-\d\d-\d+_(.*)$/.exec(runId);
  return match ? { when: `${match[2]}.${match[1]}. ${match[3]}:${match[4]}`, name: match[5] } : { when: "", name: runId };
}
