// A recipe: opened from a file, tried on the simulated lab, started, followed, held up and aborted.

import { plotly } from "./charts.js";
import { $, attempt, permit, setText, typeScale } from "./dom.js";
import { post } from "./socket.js";
import { MOL_PER_S_PER_SCCM, ZERO_CELSIUS_K, duration } from "./units.js";

const LANES = [
  { ending: ".temperature_k", title: "°C", scale: (kelvin) => kelvin - ZERO_CELSIUS_K, colour: "#e8955b" },
  { ending: ".current_a", title: "A", scale: (value) => value, colour: "#d9c36f" },
  { ending: ".power_w", title: "W", scale: (value) => value, colour: "#e8b15b" },
  { ending: ".pressure_pa", title: "Pa", scale: (value) => value, colour: "#6fb3d9" },
  { ending: ".flow_setpoint_mol_per_s", title: "sccm", scale: (value) => value / MOL_PER_S_PER_SCCM, colour: "#8fc7a3" },
];
const ACTIVE = ["running", "paused", "ending"];

export class RecipeCard {
  constructor() {
    this.text = null;
    this.line = $("recipe-line");
    $("recipe-file").onchange = () => this.open();
    $("recipe-try").onclick = () => this.rehearse();
    $("recipe-start").onclick = () => this.act("/recipe", "started", { text: this.text });
    $("recipe-pause").onclick = () => this.act(this.paused ? "/recipe/resume" : "/recipe/pause", "");
    $("recipe-abort").onclick = () => this.act("/recipe/abort", "aborted; the lab is at rest");
  }

  act(path, done, body) {
    return attempt(this.line, () => post(path, body), done);
  }

  open() {
    const [file] = $("recipe-file").files;
    return attempt(this.line, async () => {
      this.text = null;
      this.text = await file.text();
      $("recipe-plot").hidden = true;
    }, `${file.name}: try it before you start it`);
  }

  rehearse() {
    setText(this.line, "trying it on the simulated lab …");
    return attempt(this.line, async () => {
      const timeline = await post("/recipe/dry-run", { text: this.text });
      $("recipe-plot").hidden = false;
      draw(await plotly, $("recipe-plot"), timeline);
      return timeline;
    }, ({ state, reason, duration_s: seconds, timeouts }) =>
      `dry run ${state} after ${duration(seconds)} min${reason ? `: ${reason}` : ""}${timeouts.length ? `; ${timeouts.join("; ")}` : ""}`);
  }

  show({ recipe }, looksOn) {
    if (!recipe) return;
    const active = ACTIVE.includes(recipe.state), may = (command) => recipe.permitted.includes(command);
    this.paused = recipe.state === "paused";
    permit([$("recipe-try")], this.text === null ? "open a recipe first" : "");
    permit([$("recipe-start")],
      looksOn || (this.text === null ? "open a recipe first" : may("recipe_start") ? "" : "a recipe is under way"));
    permit([$("recipe-pause")], looksOn || (may("recipe_pause") || may("recipe_resume") ? "" : "no recipe is under way"));
    permit([$("recipe-abort")], may("recipe_abort") ? "" : "no recipe is under way");
    setText($("recipe-pause"), this.paused ? "Go on" : "Pause");
    const left = recipe.left_s == null ? "" : ` · ${duration(recipe.left_s)} min left`;
    const step = `step ${recipe.step} of ${recipe.steps}: ${recipe.doing}${left}`;
    setText($("recipe-now"), active ? `${recipe.state}, ${step}` : [recipe.state, recipe.reason].filter(Boolean).join(": "));
  }
}

/** What the dry run did, one lane a quantity, with the marks of the recipe. */
function draw({ react }, place, { channels, events }) {
  const lanes = LANES.map((lane) => ({ ...lane, names: Object.keys(channels).filter((name) => name.endsWith(lane.ending)) }))
    .filter((lane) => lane.names.length);
  const k = typeScale(), axis = { fixedrange: true, zeroline: false, color: "#7f8894" };
  const layout = {
    margin: { l: 34 * k, r: 4, t: 2, b: 24 * k }, height: (25 + 47 * lanes.length) * k, width: place.clientWidth, showlegend: false, dragmode: false,
    paper_bgcolor: "transparent", plot_bgcolor: "transparent", font: { color: "#7f8894", size: 9 * k },
    xaxis: { ...axis, title: { text: "s" }, gridcolor: "#1d2127", anchor: "free", position: 0 },
    shapes: events.filter((event) => event.name === "mark").map(({ time_s: at }) => ({
      type: "line", xref: "x", yref: "paper", x0: at, x1: at, y0: 0, y1: 1, line: { width: 1, dash: "dot", color: "#4a525d" },
    })),
  };
  const traces = lanes.flatMap((lane, index) => {
    const number = index ? index + 1 : "";
    const domain = [1 - (index + 1) / lanes.length + 0.05, 1 - index / lanes.length];
    layout[`yaxis${number}`] = { ...axis, domain, title: { text: lane.title }, showgrid: false, nticks: 3 };
    return lane.names.map((name) => ({
      type: "scatter", mode: "lines", yaxis: `y${number}`, name, line: { width: 1.2, color: lane.colour },
      x: channels[name].times_s, y: channels[name].values.map((value) => (value == null ? null : lane.scale(value))),
      hovertemplate: `%{x:.1f} s  %{y:.4~g} ${lane.title}<extra>${name}</extra>`,
    }));
  });
  react(place, traces, layout, { displayModeBar: false });
}
