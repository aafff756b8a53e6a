// Starting, stopping and freezing: the run as the operator drives it.

import { $, attempt, permit, setText } from "./dom.js";
import { post } from "./socket.js";

export class RunControls {
  constructor(page) {
    this.page = page;
    this.line = $("run-line");
    $("run-start").onclick = () => this.start();
    $("run-stop").onclick = () => this.act("/run:stop", "stopped");
    $("run-abort").onclick = () => this.act("/run:abort", "aborted; what was recorded stays, marked incomplete");
    $("run-reset").onclick = () => this.act("/run:reset", "");
    $("freeze").onclick = () => this.freeze();
  }

  act(path, done) {
    return attempt(this.line, () => post(path), done);
  }

  start() {
    const typed = $("run-frames").value.trim(), size = Number($("run-size").value) || null;
    const frames = typed === "" ? null : Number(typed);
    const fuse = $("run-fuse").value.trim(), fuseFrames = fuse === "" ? null : Number(fuse);
    return attempt(this.line, async () => {
      if (frames !== null && !(Number.isInteger(frames) && frames > 0)) {
        throw new Error(`"${typed}" is not a number of frames; leave it empty to run until stopped`);
      }
      if (fuseFrames !== null && !(Number.isInteger(fuseFrames) && fuseFrames >= 0)) {
        throw new Error(`"${fuse}" is not a number of frames to fuse; leave it empty to do as the settings say`);
      }
      return post("/run", {
        record: $("run-record").checked, frames, width_px: size, height_px: size, name: $("run-name").value || "run",
        fuse_frames: fuseFrames,
      });
    }, (answer) => `started ${answer.run_id}`);
  }

  freeze() {
    this.page.freeze(!this.page.frozen);
    $("freeze").setAttribute("aria-pressed", String(this.page.frozen));
    setText($("freeze"), this.page.frozen ? "Go on" : "Freeze");
  }

  /** The key r: begin to record, or end the recording. */
  toggleRecording() {
    const { state, run } = this.page.status ?? {}, looksOn = this.page.driver.reason;
    if (looksOn) return attempt(this.line, () => Promise.reject(new Error(looksOn)));
    if (state === "acquiring" && run.recording) return this.act("/run:stop", "recording ended");
    if (state === "idle") {
      $("run-record").checked = true;
      return this.start();
    }
    const why = state === "acquiring" ? "this run is not recorded; stop it first" : `not possible while ${state}`;
    return attempt(this.line, () => Promise.reject(new Error(why)));
  }

  show(status, looksOn) {
    const may = (command) => looksOn || (status.permitted.includes(command)
      ? "" : `not possible while ${status.state}; possible now: ${status.permitted.join(", ")}`);
    permit([$("run-start"), $("run-record"), $("run-name"), $("run-frames"), $("run-fuse"), $("run-size")], may("start"));
    permit([$("run-stop")], may("stop"));
    permit([$("run-abort")], may("abort"));
    permit([$("run-reset")], may("reset"));
    const run = status.run, of = run?.expected ? ` of ${run.expected}` : "";
    const waiting = (status.backfill ?? []).reduce((sum, one) => sum + (one.waiting ?? one.missing ?? 0), 0);
    const counted = run && status.state !== "idle" ? ` · ${run.frames}${of} frames` : "";
    const heights = run?.heights != null && status.state !== "idle" ? `, ${run.heights} heights` : "";
    setText($("run-state"), `${status.state}${counted}${heights}${waiting ? ` · ${waiting} heights to come` : ""}`);
  }
}
