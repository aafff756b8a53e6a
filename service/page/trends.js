// Temperature, pressure, flows, laser current, residual and step velocity on one time axis, with marks where things happened.

import { plotly } from "./charts.js";
import { $, setText, typeScale } from "./dom.js";
import { get } from "./socket.js";
import { MOL_PER_S_PER_SCCM, ZERO_CELSIUS_K, digits, formula } from "./units.js";

const REFRESH_MS = 2000, STEP_VELOCITY = "figures.step_velocity_m_per_s";
const GAS_COLOURS = ["#8fc7a3", "#c58fc7", "#8f9fc7", "#c7b58f"];
const BAND_COLOUR = "#5c6673";
const MARK_COLOURS = { info: "#4a525d", warning: "#a67a2c" };
const MARKED = new Set(["transition", "setpoint", "armed", "off", "alarm", "safe_state", "run_complete"]);

export class Trends {
  constructor(page) {
    this.page = page;
    $("trends-span").onchange = () => this.refresh();
    new ResizeObserver(() => this.draw()).observe($("trends"));
    setInterval(() => document.hidden || this.refresh(), REFRESH_MS);
    this.refresh();
    plotly.then((found) => {
      this.plotly = found;
      this.draw();
    }, (error) => setText($("trends"), error.message));
  }

  async refresh() {
    try {
      this.data = await get(`/trends?seconds=${$("trends-span").value}`);
      this.draw();
    } catch {
      return; // the banner already says that the service does not answer
    }
  }

  draw() {
    if (!this.data || !this.page.status || !this.plotly) return;
    const lanes = lanesOf(this.page.status.devices, this.data.channels), traces = [], annotations = [];
    const layout = emptyLayout(this.data, Number($("trends-span").value));
    const { live } = this.page;
    if (live?.replayed) layout.shapes.push(mark(live.frame.utc_ns, "#e3a73f", "solid"));
    lanes.forEach((lane, index) => {
      const axis = index ? `y${index + 1}` : "y", gap = 0.035;
      const low = 1 - (index + 1) / lanes.length + gap, high = 1 - index / lanes.length - gap / 2;
      layout[`yaxis${index ? index + 1 : ""}`] = { ...Y_AXIS, tickfont: { size: 9 * typeScale() }, domain: [low, high], ...rangeOf(lane, this.data) };
      for (const line of lane.lines) traces.push(trace(line, this.data.channels[line.channel], axis));
      annotations.push(label(lane, this.data, (low + high) / 2));
    });
    const { clientWidth: width, clientHeight: height } = $("trends");
    this.plotly.react($("trends"), traces, { ...layout, width, height, annotations }, { displayModeBar: false, responsive: false });
  }
}

/** One lane a quantity; several gases share theirs, and steps have one where they are measured live. */
function lanesOf(devices, channels) {
  const of = (kind) => Object.entries(devices).filter(([, device]) => device.kind === kind);
  const gases = of("mass_flow_controller").map(([name, device], index) => ({
    channel: `${name}.flow_mol_per_s`, colour: GAS_COLOURS[index % GAS_COLOURS.length], name: formula(device.gas ?? name),
    scale: (value) => value / MOL_PER_S_PER_SCCM,
  }));
  const single = (kind, quantity, title, unit, colour, scale = (value) => value) =>
    of(kind).map(([name]) => ({ title, unit, lines: [{ channel: `${name}.${quantity}`, colour, name: "", scale }] }));
  return [
    ...single("pyrometer", "temperature_k", "temperature", "°C", "#e8955b", (kelvin) => kelvin - ZERO_CELSIUS_K),
    ...single("laser_heater", "current_a", "laser", "A", "#d9c36f"),
    ...single("pressure_gauge", "pressure_pa", "pressure", "Pa", "#6fb3d9"),
    ...(gases.length ? [{ title: "flow", unit: "sccm", lines: gases }] : []),
    { title: "residual", unit: "× noise", lines: [["median", "#a8b2be"], ["low", BAND_COLOUR], ["high", BAND_COLOUR]].map(
      ([name, colour]) => ({ channel: `figures.residual_${name}`, colour, name: "", edge: name !== "median", scale: (value) => value })) },
    ...(channels[STEP_VELOCITY]?.values.length ? [{ title: "steps", unit: "nm/s", lines: [
      { channel: STEP_VELOCITY, colour: "#c9a3e0", name: "", scale: (value) => value * 1e9 }] }] : []),
  ];
}

const Y_AXIS = {
  fixedrange: true, showgrid: false, zeroline: false, nticks: 2, ticklen: 2, color: "#7f8894",
};

const last = (data, line) => {
  const value = data.channels[line.channel]?.values.at(-1);
  return value == null ? null : line.scale(value);
};

/** A flat line belongs in the middle of its lane, not on an axis of noise. */
function rangeOf(lane, data) {
  let low = Infinity, high = -Infinity;
  for (const line of lane.lines) {
    for (const value of data.channels[line.channel]?.values ?? []) {
      if (value == null) continue;
      low = Math.min(low, line.scale(value));
      high = Math.max(high, line.scale(value));
    }
  }
  if (low > high) return { range: [0, 1], showticklabels: false };
  if (low === 0 && high === 0) return { range: [-0.2, 1], tickvals: [0] };
  const least = Math.max(0.02 * Math.abs(high), 1e-3), room = Math.max((high - low) * 0.15, least);
  return { range: [low - room, high + room] };
}

function trace(line, channel, axis) {
  return {
    type: "scatter", mode: "lines", yaxis: axis, name: line.name, line: { color: line.colour, width: 1.4 },
    x: (channel?.utc_ns ?? []).map(toDate),
    y: (channel?.values ?? []).map((value) => (value == null ? null : line.scale(value))),
    hovertemplate: `%{x|%H:%M:%S}  %{y:.4~g}<extra>${line.name}</extra>`,
  };
}

function label(lane, data, middle) {
  const told = ({ colour }, text) => `<span style="color:${colour}">${text.trim()}</span>`;
  const values = lane.lines.filter(({ edge }) => !edge).map((line) => told(line, `${line.name} ${digits(last(data, line))}`));
  const edges = lane.lines.filter(({ edge }) => edge);
  const band = edges.length ? `<br>${told(edges[0], `band ${edges.map((line) => digits(last(data, line))).join(" to ")}`)}` : "";
  return {
    xref: "paper", yref: "paper", x: 1.005, y: middle, xanchor: "left", yanchor: "middle", showarrow: false, align: "left",
    text: `${lane.title} ${values.join(" ")} ${lane.unit}${band}`, font: { size: 10 * typeScale(), color: "#7f8894" },
  };
}

const toDate = (utcNs) => new Date(utcNs / 1e6);

function emptyLayout(data, seconds) {
  const now = Date.now(), began = Math.min(...Object.values(data.channels).map((channel) => (channel.utc_ns[0] ?? Infinity) / 1e6));
  const marks = data.events.filter((event) => MARKED.has(event.name));
  const k = typeScale();
  return {
    margin: { l: 44 * k, r: 152 * k, t: 2, b: 17 * k }, paper_bgcolor: "transparent", plot_bgcolor: "transparent",
    font: { color: "#7f8894", family: "system-ui, sans-serif", size: 10 * k }, showlegend: false, hovermode: "closest",
    hoverlabel: { bgcolor: "#1b1f25", bordercolor: "#363d47" }, dragmode: false,
    xaxis: {
      range: [new Date(Math.max(now - seconds * 1000, Math.min(began, now - 30_000))), new Date(now)], fixedrange: true, gridcolor: "#1d2127", tickformat: "%H:%M:%S",
      nticks: 8, anchor: "free", position: 0,
    },
    shapes: marks.map((event) => mark(event.utc_ns, MARK_COLOURS[event.severity] ?? "#c2474b", "dot")),
  };
}

function mark(utcNs, color, dash) {
  const at = toDate(utcNs);
  return { type: "line", xref: "x", yref: "paper", x0: at, x1: at, y0: 0, y1: 1, line: { width: 1, dash, color } };
}
