// The line profile: drawn on the height pane, followed over time, its step measured, saved as CSV.

import { $, saveFile, setText, typeScale } from "./dom.js";
import { alongLine, fitStep, rangeOf } from "./fields.js";
import { anglesText, edgesOf, measureLine, reasonsText, stepText } from "./measured.js";
import { Newest } from "./recorded.js";
import { length, lengthUnit, digits, niceBelow, withSigma } from "./units.js";

const REMEMBERED = 160;
const SHORTEST = 0.02;
const NEAR = 0.03;

export class Profile {
  constructor(page, heightPane) {
    this.page = page;
    this.height = heightPane;
    this.pane = heightPane.pane;
    this.line = null;
    this.history = [];
    this.service = new Newest(page, (...wish) => measureLine(page, ...wish), () => this.draw());
    this.pane.overlays.push((...at) => this.paintLine(...at));
    this.listen();
    $("profile-clear").onclick = () => this.set(null);
    $("profile-save").onclick = () => this.save();
    $("profile-width").onchange = () => this.set(this.line);
    $("profile").addEventListener("pointermove", (event) => this.probeAt(event));
    $("profile").addEventListener("pointerleave", () => page.probe(null));
    new ResizeObserver(() => {
      this.size = null;
      this.draw();
    }).observe($("profile"));
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

  /** The pointer on the chart is a place in the images. */
  probeAt({ offsetX }) {
    if (!this.measured) return;
    const { left, right } = this.chart, share = (offsetX * (window.devicePixelRatio || 1) - left) / (right - left);
    const { x0, y0, x1, y1 } = this.line;
    this.page.probe(share >= 0 && share <= 1 ? { x: x0 + share * (x1 - x0), y: y0 + share * (y1 - y0) } : null);
  }

  /** How far along the line the cursor is, when it is near it. */
  cursorShare() {
    const { cursor } = this.page, { x0, y0, x1, y1 } = this.line;
    if (!cursor) return null;
    const dx = x1 - x0, dy = y1 - y0, square = dx * dx + dy * dy;
    const share = ((cursor.x - x0) * dx + (cursor.y - y0) * dy) / square;
    const aside = Math.abs((cursor.x - x0) * dy - (cursor.y - y0) * dx) / Math.sqrt(square);
    return share >= 0 && share <= 1 && aside < NEAR ? share : null;
  }

  set(line) {
    this.line = line;
    this.history = [];
    this.measured = null;
    for (const id of ["profile-clear", "profile-save"]) $(id).disabled = !line;
    this.service.ask(line && { line, wide: this.wide });
    if (line && this.page.field) this.follow(this.page.field);
    this.draw();
    this.pane.paintOver();
  }

  /** This page's own straight fit, made only while the service has measured nothing. */
  get step() {
    const { distance, heights } = this.measured;
    return (this.fitted ??= fitStep(distance, heights));
  }

  get wide() {
    return Number($("profile-width").value);
  }

  /** A new map: the profile of now joins those before, and the service is asked what it measures on it. */
  follow(field) {
    if (!this.line) return;
    this.service.ask({ line: this.line, wide: this.wide });
    this.measured = alongLine(field, this.line, this.wide);
    this.fitted = null;
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
    const { tree, reason, sequence } = this.service.told ?? {};
    const line = (id, text, more = "") => {
      setText($(id), text);
      $(id).title = text + more;
    };
    line("profile-angles", this.measured && tree ? anglesText(tree) ?? "" : "");
    line("profile-why", this.measured ? reason ?? (tree ? reasonsText(tree) : "") : "");
    if (!this.measured) {
      line("profile-figures", "drag on the height pane, or press p");
      return;
    }
    const end = `over ${length(this.measured.distance.at(-1))}`;
    const parts = tree ? [stepText(tree), end, `frame ${sequence}`] : [...this.ownFigures(), end];
    line("profile-figures", parts.filter(Boolean).join("  ·  "), tree?.step ? ` · by the rule: ${tree.step.rule}` : "");
  }

  ownFigures() {
    if (!this.step) return [];
    const unit = lengthUnit(this.step.step);
    const step = withSigma(Math.abs(this.step.step) * unit.factor, this.step.sigmaStep * unit.factor, unit.name);
    return [`step ${step}`, `facet ${withSigma(this.step.angle, this.step.sigmaAngle, "°")}`, "this page's own fit"];
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
    const { context, width, height, ratio } = (this.size ??= fitted($("profile"))), scale = ratio * typeScale();
    context.clearRect(0, 0, width, height);
    if (!this.measured) return;
    const { distance, heights } = this.measured, end = distance.at(-1);
    let [low, high] = [Math.min(...heights), Math.max(...heights)];
    const room = 0.12 * (high - low) || 1e-12;
    [low, high] = [low - room, high + room];
    const box = { left: 46 * scale, right: width - 8 * scale, top: 4 * scale, bottom: height - 17 * scale };
    this.chart = box;
    const X = (d) => box.left + (d / end) * (box.right - box.left);
    const Y = (z) => box.bottom - ((z - low) / (high - low)) * (box.bottom - box.top);
    axes(context, box, { end, low, high }, X, Y, scale);
    const { tree } = this.service.told ?? {};
    if (tree) this.paintMeasured(context, tree, box, X, Y);
    else if (this.step && Math.abs(this.step.step) > 2 * this.step.sigmaStep) this.paintFit(context, X, Y, distance, ratio);
    context.strokeStyle = "#7fc4d9";
    context.lineWidth = 1.5 * ratio;
    context.beginPath();
    distance.forEach((d, i) => context.lineTo(X(d), Y(heights[i])));
    context.stroke();
    const share = this.cursorShare();
    if (share !== null) this.paintCursor(context, box, X(share * end), Y(heights[Math.round(share * (heights.length - 1))]), ratio);
  }

  /** What was measured on: its profile with the standard uncertainty as a band, and a rule at each edge. */
  paintMeasured(context, tree, box, X, Y) {
    const { distances_m: at, heights_m: heights, sigma_m: sigmas } = tree;
    const points = at.map((d, i) => [X(d), heights[i], sigmas[i] ?? 0]).filter(([, z]) => z != null);
    context.fillStyle = "rgb(232 177 91 / 0.35)";
    context.strokeStyle = "rgb(232 177 91 / 0.6)";
    context.lineWidth = 1;
    context.beginPath();
    points.forEach(([x, z]) => context.lineTo(x, Y(z)));
    context.stroke();
    context.beginPath();
    points.forEach(([x, z, sigma]) => context.lineTo(x, Y(z + sigma)));
    points.reverse().forEach(([x, z, sigma]) => context.lineTo(x, Y(z - sigma)));
    context.fill();
    for (const edge of edgesOf(tree)) rule(context, X(edge.at), box.top, X(edge.at), box.bottom);
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

  paintCursor(context, { top, bottom }, x, y, ratio) {
    context.strokeStyle = context.fillStyle = "#fff";
    context.lineWidth = ratio;
    rule(context, x, top, x, bottom);
    context.beginPath();
    context.arc(x, y, 3 * ratio, 0, 7);
    context.fill();
  }

  paintKymograph() {
    const canvas = $("kymograph"), width = this.measured?.heights.length ?? 1;
    const height = REMEMBERED / 4;
    if (canvas.width !== width || canvas.height !== height || !this.measured) Object.assign(canvas, { width, height });
    if (!this.measured) return;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const image = context.createImageData(width, canvas.height), pixels = new Uint32Array(image.data.buffer);
    const shown = this.history.slice(-canvas.height), colours = this.height.table;
    const [low, high] = rangeOf(shown.at(-1), 0.01), last = colours.length - 1, scale = (last + 0.999) / (high - low);
    shown.forEach((heights, index) => {
      const row = (canvas.height - shown.length + index) * width;
      for (let i = 0; i < width; i++) pixels[row + i] = colours[Math.max(0, Math.min(last, ((heights[i] - low) * scale) | 0))];
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
  return { context: canvas.getContext("2d"), width, height, ratio };
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
    if (Y(z) > box.top + 13 * ratio) context.fillText(digits(Math.abs(z) < lift * 1e-6 ? 0 : z * up.factor), box.left - 5 * ratio, Y(z));
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
