// Gas and stage. The server enforces every limit; here a locked control says which, and off always works.

import { $, attempt, el, permit, setText } from "./dom.js";
import { post } from "./socket.js";
import { MOL_PER_S_PER_SCCM, digits, formula, percent } from "./units.js";

const COLOURS = ["#8fc7a3", "#c58fc7", "#8f9fc7", "#c7b58f"];

export const number = (input, what) => {
  const text = input.value.trim().replace(",", ".");
  if (text === "" || !Number.isFinite(Number(text))) throw new Error(`"${input.value}" is not a ${what}`);
  return Number(text);
};

export const device = (status, kind) => Object.entries(status.devices).find(([, one]) => one.kind === kind) ?? [];
export const set = (name, values) => post(`/devices/${name}/setpoints`, values);
export const unreachable = (name, one) => (one.connected ? "" : `${name} is not connected: ${one.reason}`);

export class GasCard {
  constructor() {
    this.line = $("gas-line");
    this.rows = new Map();
  }

  show(status, locked) {
    const gases = Object.entries(status.devices).filter(([, one]) => one.kind === "mass_flow_controller");
    if ([...this.rows.keys()].join() !== gases.map(([name]) => name).join()) this.build(gases);
    const flows = gases.map(([, gas]) => Math.max(0, gas.readings.flow_mol_per_s?.value ?? 0) / MOL_PER_S_PER_SCCM);
    const total = flows.reduce((sum, flow) => sum + flow, 0);
    gases.forEach(([name, gas], index) => {
      const row = this.rows.get(name), target = gas.readings.flow_setpoint_mol_per_s?.value / MOL_PER_S_PER_SCCM;
      setText(row.now, `${flows[index].toFixed(2)} of ${digits(target)} sccm`);
      row.part.style.flexGrow = total > 0.005 ? flows[index] : 0;
      permit([row.input, row.set], locked || unreachable(name, gas));
    });
    const mix = gases.map(([name, gas], index) => `${formula(gas.gas ?? name)} ${percent(flows[index] / total)}`);
    setText($("gas-total"), total > 0.005 ? `${total.toFixed(2)} sccm · ${mix.join(" · ")}` : "no flow");
    const lost = gases.map(([name, gas]) => unreachable(name, gas)).find(Boolean);
    setText($("gas-why"), locked || (lost ?? ""));
  }

  build(gases) {
    this.rows.clear();
    const bar = el("div", { class: "mix", "aria-hidden": "true" });
    $("gases").replaceChildren();
    gases.forEach(([name, gas], index) => {
      const limit = gas.limits.flow_mol_per_s?.high / MOL_PER_S_PER_SCCM;
      const row = {
        now: el("span", { class: "note" }),
        input: el("input", { class: "short", inputmode: "decimal", "aria-label": `Flow of ${name} in sccm`, placeholder: limit ? `≤ ${digits(limit)}` : "" }),
        set: el("button", { "aria-label": `Set ${name}` }, "Set"),
        part: el("span", { style: `background:${COLOURS[index % COLOURS.length]}` }),
      };
      const send = () => attempt(this.line, async () => {
        const sccm = number(row.input, "flow in sccm");
        await set(name, { flow_mol_per_s: sccm * MOL_PER_S_PER_SCCM });
        return sccm;
      }, (sccm) => `${name} set to ${sccm} sccm`);
      row.set.onclick = send;
      row.input.onkeydown = (event) => event.key === "Enter" && send();
      bar.append(row.part);
      $("gases").append(el("div", { class: "gas" }, el("b", {}, formula(gas.gas ?? name)), row.now, row.input,
        el("span", { class: "row" }, row.set,
          el("button", { "aria-label": `${name} off`, onclick: () => attempt(this.line, () => post(`/devices/${name}:off`), `${name} off`) }, "off"))));
      this.rows.set(name, row);
    });
    $("gases").append(bar);
  }
}

export class StageCard {
  constructor() {
    this.line = $("stage-line");
    $("stage-move").onclick = () => this.move();
    $("stage-stop").onclick = () => attempt(this.line, () => post(`/devices/${this.name}:stop`), "stopped");
    for (const id of ["stage-x", "stage-y"]) $(id).onkeydown = (event) => event.key === "Enter" && this.move();
  }

  move() {
    attempt(this.line, async () => {
      const values = {};
      if ($("stage-x").value.trim()) values.x_m = number($("stage-x"), "position in µm") * 1e-6;
      if ($("stage-y").value.trim()) values.y_m = number($("stage-y"), "position in µm") * 1e-6;
      if (!Object.keys(values).length) throw new Error("give x or y in µm");
      setText(this.line, "moving…");
      const { reached } = await set(this.name, values);
      return reached;
    }, (reached) => `reached ${micrometres(reached.x_m)}, ${micrometres(reached.y_m)} µm`);
  }

  show(status, locked) {
    const [name, stage] = device(status, "stage");
    if (!stage) return;
    this.name = name;
    const { x_m, y_m, z_m, moving } = stage.readings, limit = stage.limits.x_m;
    const reach = limit ? ` · limit ±${digits(limit.high * 1e6)} µm` : "";
    setText($("stage-now"), `${[x_m, y_m, z_m].map((axis) => micrometres(axis?.value)).join(", ")} µm${reach}`);
    const why = locked || unreachable(name, stage);
    permit([$("stage-move"), $("stage-x"), $("stage-y")], why || (moving?.value > 0 ? "the stage is moving; wait, or stop it" : ""));
    setText($("stage-why"), why);
  }
}

const micrometres = (metres) => (metres == null ? "–" : (metres * 1e6).toFixed(2));
