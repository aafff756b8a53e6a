// The planner: what the settings in use will be able to show of a step between two terraces.

import { $, attempt, el, setText } from "./dom.js";
import { get } from "./socket.js";
import { digits, length } from "./units.js";

const NM_PER_M = 1e9;

export class Planner {
  constructor() {
    this.card = $("plan");
    this.planned = null;
    this.asked = 0;
    for (const input of [$("plan-step"), $("plan-terrace")]) input.onchange = () => this.refresh();
    this.card.ontoggle = () => this.refresh();
  }

  /** Another run may have another instrument, another frame other settings. */
  show({ run_id: runId, frame }) {
    const seen = JSON.stringify([runId, frame.shape, frame.pixel_size_m]);
    if (seen === this.planned) return;
    this.planned = seen;
    this.refresh();
  }

  refresh() {
    if (!this.card.open) return;
    const asked = ++this.asked;
    return attempt($("plan-line"), async () => {
      setText($("plan-line"), "computing …");
      const plan = await get(`/plan?step_m=${metres("plan-step", "step")}&terrace_m=${metres("plan-terrace", "terrace")}`);
      if (asked === this.asked) this.draw(plan);
    }).then((good) => asked === this.asked && this.card.classList.toggle("old", !good));
  }

  draw(plan) {
    const { noise, feature } = plan, best = plan.advice[0];
    const figures = [
      ["frame", `${digits(plan.frame_time_s)} s · ${plan.shape[1]} × ${plan.shape[0]} px of ${length(plan.pixel_size_m)}`],
      ["electrons", `${digits(plan.detected)} a pixel · ${digits(plan.primaries_per_nm2)} per nm² landing`],
      ["slope noise", `${digits(noise.slope_noise_deg)}° a pixel · ${digits(feature.tilt_noise_deg, 2)}° a terrace`],
      ["step noise", `${length(feature.step_noise_m, 2)} · signal to noise ${digits(feature.signal_to_noise, 2)}`],
      ["shadows", plan.shadow_free_tilt_deg === null ? "not known without radii"
        : `from ${digits(plan.shadow_free_tilt_deg)}° on · ${digits(plan.vision_field_per_relief, 2)} × the rise far`],
      ["saturates", plan.saturating_dose === null ? "not known" : `from ${digits(plan.saturating_dose)} electrons a pixel on`],
    ];
    $("plan-figures").replaceChildren(...figures.flatMap(([name, text]) => [el("dt", {}, name), el("dd", {}, text)]));
    setText($("plan-now"), `${digits(noise.slope_noise_deg)}° a pixel`);
    setText($("plan-words"), feature.in_words);
    setText($("plan-advice"), `Best to change: ${best.change}, ${digits(best.gain, 2)} × less noise at equal time (${best.cost}).`);
    setText($("plan-why"), [...plan.warnings, ...plan.unknown.map((what) => `not known: ${what}`)].join("; "));
  }
}

function metres(id, name) {
  const typed = $(id).value.trim(), value = Number(typed.replace(",", "."));
  if (typed === "" || !(value > 0 && Number.isFinite(value))) throw new Error(`${name} "${typed}" is no length in nm above 0`);
  return value / NM_PER_M;
}
