// What the images show: segments, height, normals, residual, sigma or fusion; and the values under the pointer.

import { css, diverging, greyTable, logarithmic, table } from "./colours.js";
import { $, el, setClass, setText } from "./dom.js";
import { normalOf, paintMapped, paintNormals, rangeOf, slopeAt, valueAt } from "./fields.js";
import { Pane, sharedOverlays, scaleBarOverlay } from "./pane.js";
import { digits, length, percent } from "./units.js";

const COLOUR_MAPS = ["viridis", "batlow", "cividis", "inferno", "gray"];
const SATURATION_WARNING = 1e-3;
const LOG_TAIL = 0.005;
const FULL_SCALE = 65535;

export class SegmentPanes {
  constructor(page) {
    this.page = page;
    this.host = $("segments");
    $("segments-note").title = "the brightest count of the histograms, of the full scale of 16 bits";
    this.panes = [];
  }

  build(names) {
    this.names = names.join();
    this.host.replaceChildren();
    this.host.style.gridTemplateColumns = `repeat(${Math.ceil(Math.sqrt(names.length))}, minmax(0, 1fr))`;
    this.panes = names.map((name, index) => {
      const caption = el("span", { class: "caption" });
      const stack = el("span", { class: "stack" });
      const choose = () => this.zoom(cell);
      const cell = el("button", { class: "segment", "aria-label": `Segment ${name}`, onclick: choose }, caption, stack);
      this.host.append(cell);
      const pane = new Pane(stack, `Segment ${name}`, this.page.probe);
      pane.over.title = "mean electrons per pixel, share of saturated pixels; click to fill the pane, click again for all";
      pane.align = 0;
      pane.overlays.push((...at) => this.paintHistogram(index, ...at), sharedOverlays(this.page));
      return Object.assign(pane, { caption, name });
    });
    this.page.imagePanes.push(...this.panes);
  }

  zoom(cell) {
    const back = this.host.classList.contains("zoomed");
    for (const one of this.host.children) one.classList.toggle("chosen", !back && one === cell);
    this.host.classList.toggle("zoomed", !back);
  }

  show(message) {
    const field = message.layers.segments;
    if (!field) return;
    if (this.names !== message.frame.segment_names.join()) this.build(message.frame.segment_names);
    const size = field.width * field.height;
    // One range for all, so that unequal amplifiers look unequal.
    const [low, high] = rangeOf(field.data, 0.003);
    this.panes.forEach((pane, index) => {
      const counts = field.data.subarray(index * size, (index + 1) * size);
      pane.histogram = message.histograms[index];
      paintMapped(counts, low, high, greyTable, pane.pixels(field.width, field.height));
      pane.draw();
      pane.paintOver();
      this.caption(pane, message.mean_electrons[index], message.saturated_share[index]);
    });
    const reach = percent(message.histogram_max / FULL_SCALE);
    setText($("segments-note"), `frame ${message.frame.sequence} · histograms to ${reach}`);
  }

  caption(pane, electrons, saturated) {
    if (!pane.parts) {
      pane.parts = [el("span"), el("b"), el("span")];
      pane.caption.append(...pane.parts);
      setText(pane.parts[0], pane.name);
    }
    setText(pane.parts[1], electrons == null ? "" : `${digits(electrons)} e⁻`);
    setText(pane.parts[2], `sat ${percent(saturated)}`);
    setClass(pane.parts[2], "wrong", saturated > SATURATION_WARNING);
  }

  /** Bright counts on top, beside the image where there is room for it, else over its right edge. */
  paintHistogram(index, context, { x, y, w, h }, ratio) {
    const counts = this.panes[index].histogram;
    if (!counts) return;
    const wide = Math.min(70 * ratio, Math.max(context.canvas.width - x - w - 6 * ratio, 22 * ratio));
    const left = Math.min(x + w + 6 * ratio, context.canvas.width - wide), top = Math.log1p(Math.max(...counts));
    context.fillStyle = "rgb(12 14 17 / 0.7)";
    context.fillRect(left, y, wide, h);
    context.fillStyle = "#97a1ae";
    const step = h / counts.length;
    counts.forEach((count, bin) => {
      context.fillRect(left, y + h - (bin + 1) * step, (Math.log1p(count) / top) * wide, Math.max(1, step - 0.5));
    });
  }
}

export class HeightPane {
  constructor(page) {
    this.page = page;
    this.range = [0, 1e-9];
    this.pane = new Pane($("height"), "Height map", page.probe);
    this.pane.overlays.push(scaleBarOverlay(() => page.field && page.field.width * page.field.pixelSize));
    page.imagePanes.push(this.pane);
    for (const name of COLOUR_MAPS) $("height-map").append(el("option", { value: name }, name));
    COLOUR_MAPS.forEach(table);
    $("height-map").onchange = () => page.redraw();
    $("height-stretch").onchange = () => page.redraw();
    $("height-lock").onchange = () => page.redraw();
    for (const id of ["height-low", "height-high"]) $(id).onchange = () => this.takeRange();
  }

  get table() {
    const colours = table($("height-map").value);
    return $("height-stretch").value === "log" ? logarithmic(colours) : colours;
  }

  /** Typing an end of the range locks it: a range that was asked for must not run away. */
  takeRange() {
    const [low, high] = ["height-low", "height-high"].map((id) => Number($(id).value.replace(",", ".")) * 1e-9 + this.zero);
    if (Number.isFinite(low) && Number.isFinite(high) && high > low) {
      this.range = [low, high];
      $("height-lock").checked = true;
    }
    this.page.redraw();
  }

  zero = 0;

  show(field, result) {
    if (!$("height-lock").checked) this.range = rangeOf(field.data, $("height-stretch").value === "log" ? LOG_TAIL : Number($("height-stretch").value));
    const [low, high] = this.range;
    paintMapped(field.data, low, high, this.table, this.pane.pixels(field.width, field.height));
    this.pane.draw();
    this.paintBar();
    for (const [id, value] of [["height-low", low], ["height-high", high]]) {
      const text = digits((value - this.zero) * 1e9);
      if (document.activeElement !== $(id) && $(id).value !== text) $(id).value = text;
    }
    const wide = field.width * field.pixelSize;
    if (this.wide !== wide) this.pane.paintOver();
    this.wide = wide;
    const leftOut = result.estimated?.find((told) => told.startsWith("height from"));
    const note = leftOut ? ` · ${leftOut.split(":")[0]}` : result.estimated?.length ? " · estimated" : "";
    setText($("height-note"), `frame ${result.sequence}${note}`);
    $("height-note").title = result.estimated?.length ? `estimated from the frame: ${result.estimated.join("; ")}` : "";
  }

  paintBar() {
    const bar = $("height-bar"), colours = this.table;
    if (this.painted === colours) return;
    this.painted = colours;
    bar.width = 1;
    bar.height = 256;
    const context = bar.getContext("2d", { willReadFrequently: true });
    for (let i = 0; i < 256; i++) {
      context.fillStyle = css(colours[Math.round(((255 - i) / 255) * (colours.length - 1))]);
      context.fillRect(0, i, 1, 1);
    }
  }
}

export class NormalsPane {
  constructor(page) {
    this.pane = new Pane($("normals"), "Normals", page.probe);
    page.imagePanes.push(this.pane);
  }

  show(field) {
    paintNormals(field, this.pane.pixels(field.width, field.height));
    this.pane.draw();
  }
}

/** How far the height can be believed: what the model cannot explain, how sure its slopes are, what many frames say. */
export class TrustPane {
  constructor(page) {
    this.page = page;
    this.pane = new Pane($("trust"), "Residual, sigma or fusion", page.probe);
    page.imagePanes.push(this.pane);
    for (const radio of document.getElementsByName("trust")) radio.onchange = () => page.wantLayers();
  }

  get layer() {
    return document.querySelector("input[name=trust]:checked").value;
  }

  show(message) {
    const field = message.layers[this.layer], figures = message.result?.figures, band = this.page.status?.figures ?? {};
    if (field) {
      const [low, high] = rangeOf(field.data, 0.005);
      const reach = Math.max(Math.abs(low), Math.abs(high));
      const pixels = this.pane.pixels(field.width, field.height);
      if (this.layer === "fused_height") paintMapped(field.data, low, high, table("viridis"), pixels);
      else if (low < 0) paintMapped(field.data, -reach, reach, diverging, pixels);
      else paintMapped(field.data, low, high, table("inferno"), pixels);
      this.pane.draw();
    }
    if (!figures) return;
    const rejected = `${percent(figures.rejected_share)} rejected`, held = figures.frames_held;
    const fused = held == null ? "not fused: start a run that fuses frames" : `${digits(held, 2)} frames held`;
    const notes = {
      residual: `${rejected} · ${digits(figures.residual_median, 2)} σ of ${digits(band.residual_low, 2)}–${digits(band.residual_high, 2)} · cycle ${percent(band.cycle_height)}`,
      sigma: `${rejected} · slope ± ${digits(figures.sigma_slope, 2)}`,
    };
    setText($("trust-note"), notes[this.layer] ?? fused);
  }
}

/** The numbers under the pointer, from every layer that is there. */
export function probeText(page) {
  const { cursor, live } = page;
  if (!cursor || !live) return null;
  const parts = [];
  const add = (name, text) => parts.push([name, text]);
  const field = page.field;
  if (field) {
    const { column, row, value } = valueAt(field, cursor);
    const slope = slopeAt(field, column, row), normal = normalOf(slope);
    add("x, y", `${length(column * field.pixelSize)}, ${length(row * field.pixelSize)}`);
    add("height", length(value, 4));
    add("slope", `${digits(slope.p, 2)}, ${digits(slope.q, 2)} (${digits((Math.acos(normal[2]) * 180) / Math.PI, 2)}°)`);
    add("normal", normal.map((part) => part.toFixed(2)).join(" "));
  }
  const fused = live.layers.fused_height;
  if (fused) add("fused height", length(valueAt(fused, cursor).value, 4));
  for (const [name, unit] of [["residual", " σ"], ["sigma", ""], ["frames_held", " frames"]]) {
    const layer = live.layers[name];
    if (layer) add(name.replace("_", " "), digits(valueAt(layer, cursor).value, 2) + unit);
  }
  const segments = live.layers.segments;
  if (segments) {
    const size = segments.width * segments.height;
    const counts = live.frame.segment_names.map((_, index) => valueAt(segments, cursor, index * size).value);
    const side = Math.round(segments.pixelSize / live.frame.pixel_size_m);
    add("counts", counts.join(" ") + (side > 1 ? ` (mean of ${side} × ${side} px)` : ""));
  }
  return parts;
}
