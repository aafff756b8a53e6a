// The laser heater: current or constant power, at once or as a ramp, each confirmed. OFF always works.

import { device, number, set, unreachable } from "./devices.js";
import { $, attempt, permit, setText } from "./dom.js";
import { post } from "./socket.js";
import { digits } from "./units.js";

const SECONDS_PER_MIN = 60;
/** What the heater can be set by: quantity, unit, and the reading that shows what it is set to now. */
const MODES = {
  current_a: { unit: "A", label: "Heater current in A", read: "current_target_a", rate: "0.05" },
  power_w: { unit: "W", label: "Heater power in W", read: "power_w", rate: "0.5" },
};

export class HeaterCard {
  constructor() {
    this.line = $("heater-line");
    this.readings = {};
    $("heater-set").onclick = () => this.askSet();
    $("heater-current").onkeydown = (event) => event.key === "Enter" && !$("heater-set").disabled && this.askSet();
    $("heater-ramp").onclick = () => this.askRamp();
    $("heater-unit").onchange = () => this.choose();
    $("heater-no").onclick = () => ($("heater-confirm").hidden = true);
    $("heater-yes").onclick = () => this.confirmed();
    $("heater-arm").onclick = () => attempt(this.line, () => post(`/devices/${this.name}:arm`), "armed");
    $("heater-off").onclick = () => attempt(this.line, () => post(`/devices/${this.name}:off`), "off");
  }

  get key() {
    return $("heater-unit").value;
  }

  get mode() {
    return MODES[this.key];
  }

  get now() {
    return `${digits(this.readings[this.mode.read]?.value)} ${this.mode.unit}`;
  }

  /** Another unit: what was typed was meant in the other one. */
  choose() {
    $("heater-confirm").hidden = true;
    $("heater-current").value = "";
    $("heater-current").setAttribute("aria-label", this.mode.label);
    $("heater-rate").value = this.mode.rate;
    setText($("heater-per"), `${this.mode.unit}/s`);
  }

  askSet() {
    this.ask(() => {
      const { key, mode: { unit } } = this, wanted = number($("heater-current"), MODES[key].label.toLowerCase());
      return {
        question: `Set the laser to ${wanted} ${unit} (now ${this.now})?`,
        act: () => set(this.name, { [key]: wanted }),
        done: `set to ${wanted} ${unit}`,
      };
    });
  }

  /** A recipe of one ramp. It ends at rest as every recipe does, so it holds what it has reached, and says for how long. */
  askRamp() {
    this.ask(() => {
      const { key, mode: { unit, label } } = this, wanted = number($("heater-current"), label.toLowerCase());
      const rate = number($("heater-rate"), `rate in ${unit}/s`), minutes = number($("heater-hold"), "time in min");
      if (!(rate > 0)) throw new Error(`"${rate}" is not a rate above 0`);
      const emitting = this.readings.emission?.value > 0, arm = emitting ? [] : [{ do: "arm" }];
      const ramp = { do: "ramp", device: this.name, [key]: wanted, [`${key}_per_s`]: rate };
      const steps = [...arm, ramp, { do: "wait", seconds: minutes * SECONDS_PER_MIN }];
      return {
        question: `${emitting ? "Ramp" : "Arm and ramp"} the laser to ${wanted} ${unit} at ${rate} ${unit}/s (now ${this.now}), `
          + `hold ${minutes} min? Then laser and gas go to rest.`,
        act: () => post("/recipe", { recipe: { name: `ramp to ${wanted} ${unit}`, steps } }),
        done: "ramping; the recipe card tells how far it is",
      };
    });
  }

  ask(make) {
    attempt(this.line, async () => {
      this.asked = make();
      setText($("heater-question"), this.asked.question);
      $("heater-confirm").hidden = false;
      $("heater-yes").focus();
    });
  }

  confirmed() {
    $("heater-confirm").hidden = true;
    attempt(this.line, this.asked.act, this.asked.done);
  }

  show(status, locked) {
    const [name, heater] = device(status, "laser_heater");
    $("heater").hidden = !heater;
    if (!heater) return;
    this.name = name;
    this.readings = heater.readings;
    this.offer(heater.limits);
    const { current_a, current_target_a, emission, power_w } = heater.readings, limit = heater.limits[this.key];
    const on = emission?.value > 0 ? "emitting" : "off";
    const left = status.interlocks.operator_countdown_s;
    const power = emission?.value > 0 && power_w?.value != null ? ` · ${digits(power_w.value)} W` : "";
    setText($("heater-now"), `${on} · ${digits(current_a?.value)} of ${digits(current_target_a?.value)} A${power}${limit ? ` · limit ${limit.high} ${this.mode.unit}` : ""}`);
    $("heater-current").placeholder = limit ? `≤ ${digits(limit.high, 2)}` : "";
    const bad = status.interlocks.inputs.filter((input) => !input.good).map((input) => `${input.name}: ${input.reason}`);
    const why = locked || unreachable(name, heater) || bad.join("; ");
    permit([$("heater-set"), $("heater-arm"), $("heater-current")], why, $("heater-why"));
    permit([$("heater-ramp")], why || (status.recipe?.permitted.includes("recipe_start") ? "" : "a recipe is under way"));
    if (why) $("heater-confirm").hidden = true;
    else if (left != null && left < 30) setText($("heater-why"), `laser off in ${left.toFixed(0)} s unless somebody is seen here`);
  }

  /** Constant power only where the device lists it. */
  offer(limits) {
    const power = $("heater-unit").querySelector("[value=power_w]"), offered = "power_w" in limits;
    power.disabled = power.hidden = !offered;
    if (offered || this.key === "current_a") return;
    $("heater-unit").value = "current_a";
    this.choose();
  }
}
