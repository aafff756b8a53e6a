// Which recorded frame it is that the page shows: by its run and number the service measures on it.

import { get } from "./socket.js";

/** A measurement keeps a core busy for a while, and the cores are the run's. */
const REST_MS = 1000;

/** `{ runId, sequence }` of the frame that is shown, as it lies on the disk. Throws where none is shown. */
export async function recordedFrame(page) {
  const { live, replaying } = page;
  if (!live) throw new Error("no frame is shown: record a run, or open a recording");
  if (replaying) {
    const after = Math.max(-1, page.replayPosition() - 1);
    const [frame] = await get(`/runs/${encodeURIComponent(replaying.run_id)}/frames?after=${after}&limit=1`);
    return { runId: replaying.run_id, sequence: frame.sequence };
  }
  return { runId: live.run_id, sequence: live.result?.sequence ?? live.frame.sequence };
}

/** Throws where what is shown is known not to lie on the disk; of a run that has ended only the service knows. */
export function requireRecorded({ live, status, replaying }) {
  if (replaying || !live) return;
  if (live.replayed) throw new Error("the replay has ended: open it again to measure on it");
  if (status?.state === "acquiring" && status.run?.run_id === live.run_id && !status.run.recording) {
    throw new Error("this run is not recorded: record one, or open a recording, and the service measures on it");
  }
}

/** Ask for what is measured on a frame. While a run is recorded, a height is seen a moment before it is on the disk. */
export async function ofFrame({ runId, sequence }, what) {
  for (let again = 2; ; again--) {
    try {
      return await get(`/runs/${encodeURIComponent(runId)}/heights/${sequence}/${what}`);
    } catch (error) {
      if (!again || error.status !== 422) throw error;
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
  }
}

/** Measures on the newest recorded frame again and again, one at a time; the newest wish wins. */
export class Newest {
  /** `measure(wish, at)` is asked for each new frame `at`; `told` holds `{ ...at, tree }` or `{ reason }`, null before. */
  constructor(page, measure, onChange) {
    Object.assign(this, { page, measure, onChange, told: null, wanted: null });
  }

  /** `wish` is plain data, or null for nothing; what was told of another wish is forgotten. */
  ask(wish) {
    const key = JSON.stringify(wish);
    if (key !== this.key) this.told = null;
    this.key = key;
    this.wanted = wish && { key, wish };
    if (!this.busy && this.wanted) this.work();
  }

  async work() {
    this.busy = true;
    while (this.wanted) {
      const { key, wish } = this.wanted;
      this.wanted = null;
      const told = await this.once(wish).catch((error) => ({ reason: error.message }));
      if (key === this.key) {
        this.told = told;
        this.onChange();
      }
      await new Promise((resolve) => setTimeout(resolve, told.tree ? REST_MS : REST_MS / 4));
    }
    this.busy = false;
  }

  async once(wish) {
    requireRecorded(this.page);
    const at = await recordedFrame(this.page), { told } = this;
    if (told?.sequence === at.sequence && told.runId === at.runId) return told;
    return { ...at, tree: await this.measure(wish, at) };
  }
}
