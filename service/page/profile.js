// The line profile: drawn on the height pane, followed over time, its step measured, saved as CSV.

import { table } from "./colours.js";
import { $, saveFile, setText, typeScale } from "./dom.js";
import { alongLine, fitStep, rangeOf } from "./fields.js";
import { length, lengthUnit, digits, niceBelow, withSigma } from "./units.js";

const REMEMBERED = 160;
const SHORTEST = 0.02;

export class Profile {
  constructor(page, heightPane) {
    this.page = page;
    this.pane = heightPane.pane;
    this.line = null;
    this.history = [];
    this.pane.overlays.push((...at) => this.paintLine(...at));
    this.listen();
    $("profile-clear").onclick = () => this.set(null);
    $("profile-save").onclick = () => this.save();
    $("profile-width").onchange = () => this.set(this.line);
    new ResizeObserver(() => this.draw()).observe($("profile"));
  }

  listen() {
    const canvas = this.pane.over;
    let start = null;
    canvas.addEventListener("pointerdown", (event) => {
      start = this.pane.fraction(event);
      if (start) canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      const end = start && this.pane.fraction(event);
      if (!end || Math.hypot(end.x - start.x, end.y - start.y) < SHORTEST) return;
      this.set({ x0: start.x, y0: start.y, x1: end.x, y1: end.y });
    });
    for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, () => (start = null));
  }

  /** The key p: a line across the middle, or none. */
  toggle() {
    this.set(this.line ? null : { x0: 0.08, y0: 0.5, x1: 0.92, y1: 0.5 });
  }

  set(line) {
    this.line = line;
    this.history = [];
    this.measured = null;
    for (const id of ["profile-clear", "profile-save"]) $(id).disabled = !line;
    if (line && this.page.field) this.follow(this.page.field);
    this.draw();
    this.pane.paintOver();
  }

  /** A new map: the profile of now joins those before. */
  follow(field) {
    if (!this.line) return;
    this.measured = alongLine(field, this.line, Number($("profile-width").value));
    this.step = fitStep(this.measured.distance, this.measured.heights);
    this.history.push(this.measured.heights);
    if (this.history.length > REMEMBERED) this.history.shift();
    this.draw();
  }

  draw() {
    this.tell();
    this.paintChart();
    this.paintKymograph();
  }

  tell() {
    if (!this.measured) {
      setText($("profile-figures"), "drag on the height pane, or press p");
      return;
    }
    const end = this.measured.distance.at(-1), parts = [`over ${length(end)}`];
    if (this.step) {
      const unit = lengthUnit(this.step.step);
      const step = withSigma(Math.abs(this.step.step) * unit.factor, this.step.sigmaStep * unit.factor, unit.name);
      parts.unshift(`step ${step}`, `facet ${withSigma(this.step.angle, this.step.sigmaAngle, "°")}`);
    }
    setText($("profile-figures"), parts.join("  ·  "));
  }

  paintLine(context, { x, y, w, h }, ratio) {
    if (!this.line) return;
    const { x0, y0, x1, y1 } = this.line;
    for (const [colour, thick] of [["rgb(0 0 0 / 0.65)", 4], ["#fff", 1.6]]) {
      context.strokeStyle = context.fillStyle = colour;
      context.lineWidth = thick * ratio;
      context.beginPath();
      context.moveTo(x + x0 * w, y + y0 * h);
      context.lineTo(x + x1 * w, y + y1 * h);
      context.stroke();
      for (const [px, py] of [[x0, y0], [x1, y1]]) {
        context.beginPath();
        context.arc(x + px * w, y + py * h, (thick + 1.4) * ratio, 0, 7);
        context.fill();
      }
    }
  }

  paintChart() {
    const { context, width, height, ratio } = fitted($("profile")), scale = ratio * typeScale();
    if (!this.measured) return;
    const { distance, heights } = this.measured, end = distance.at(-1);
    let [low, high] = [Math.min(...heights), Math.max(...heights)];
    const room = 0.12 * (high - low) || 1e-12;
    [low, high] = [low - room, high + room];
    const box = { left: 46 * scale, right: width - 8 * scale, top: 4 * scale, bottom: height - 17 * scale };
    const X = (d) => box.left + (d / end) * (box.right - box.left);
    const Y = (z) => box.bottom - ((z - low) / (high - low)) * (box.bottom - box.top);
    axes(context, box, { end, low, high }, X, Y, scale);
    if (this.step && Math.abs(this.step.step) > 2 * this.step.sigmaStep) this.paintFit(context, X, Y, distance, ratio);
    context.strokeStyle = "#7fc4d9";
    context.lineWidth = 1.5 * ratio;
    context.beginPath();
    distance.forEach((d, i) => context.lineTo(X(d), Y(heights[i])));
    context.stroke();
  }

  paintFit(context, X, Y, distance, ratio) {
    const { base, rise, step, cut } = this.step, n = distance.length, end = distance[n - 1];
    const level = (i, upper) => base + (rise * distance[i]) / end + (upper ? step : 0);
    context.strokeStyle = "#e8b15b";
    context.lineWidth = 1.2 * ratio;
    context.setLineDash([4 * ratio, 3 * ratio]);
    context.beginPath();
    context.moveTo(X(0), Y(level(0, false)));
    context.lineTo(X(distance[cut]), Y(level(cut, false)));
    context.lineTo(X(distance[cut]), Y(level(cut, true)));
    context.lineTo(X(end), Y(level(n - 1, true)));
    context.stroke();
    context.setLineDash([]);
  }

  paintKymograph() {
    const canvas = $("kymograph"), width = this.measured?.heights.length ?? 1;
    Object.assign(canvas, { width, height: REMEMBERED / 4 });
    if (!this.measured) return;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const image = context.createImageData(width, canvas.height), pixels = new Uint32Array(image.data.buffer);
    const shown = this.history.slice(-canvas.height), colours = table($("height-map").value);
    const [low, high] = rangeOf(shown.at(-1), 0.01), scale = 255.999 / (high - low);
    shown.forEach((heights, index) => {
      const row = (canvas.height - shown.length + index) * width;
      for (let i = 0; i < width; i++) pixels[row + i] = colours[Math.max(0, Math.min(255, ((heights[i] - low) * scale) | 0))];
    });
    context.putImageData(image, 0, 0);
  }

  save() {
    const { distance, heights } = this.measured, frame = this.page.live;
    const head = `# run ${frame.run_id}, frame ${frame.result.sequence}\ndistance_m,height_m\n`;
    const rows = Array.from(distance, (d, i) => `${d.toExponential(6)},${heights[i].toExponential(6)}`);
    saveFile(`profile-${frame.run_id}-${frame.result.sequence}.csv`, `${head}${rows.join("\n")}\n`, "text/csv");
  }
}

function fitted(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
  const height = Math.max(1, Math.round(canvas.clientHeight * ratio));
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  return { context, width, height, ratio };
}

function axes(context, box, { end, low, high }, X, Y, ratio) {
  const along = lengthUnit(end), up = lengthUnit(high - low);
  context.font = `${10.5 * ratio}px system-ui, sans-serif`;
  context.fillStyle = "#7f8894";
  context.strokeStyle = "#252a31";
  context.lineWidth = ratio;
  context.textAlign = "right";
  context.textBaseline = "middle";
  const lift = niceBelow((high - low) / 2.2);
  for (let z = Math.ceil(low / lift) * lift; z < high; z += lift) {
    rule(context, box.left, Y(z), box.right, Y(z));
    context.fillText(digits(Math.abs(z) < lift * 1e-6 ? 0 : z * up.factor), box.left - 5 * ratio, Y(z));
  }
  context.textAlign = "center";
  context.textBaseline = "top";
  const step = niceBelow(end / 2.2);
  for (let d = 0; d < 0.93 * end; d += step) {
    rule(context, X(d), box.bottom, X(d), box.bottom + 3 * ratio);
    context.fillText(digits(d * along.factor), X(d), box.bottom + 4 * ratio);
  }
  context.textAlign = "right";
  context.fillText(along.name, box.right, box.bottom + 4 * ratio);
  context.fillText(up.name, box.left - 5 * ratio, box.top - 2 * ratio);
}

function rule(context, x0, y0, x1, y1) {
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}
