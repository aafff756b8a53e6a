// One image on the page: a canvas for the pixels and one above it for what moves (cursor, line, scale bar).

import { el, typeScale } from "./dom.js";
import { length, niceBelow } from "./units.js";

export class Pane {
  /** `host` is a positioned element. `onProbe(fraction | null)` hears where in the image the pointer is. */
  constructor(host, label, onProbe) {
    this.base = el("canvas", { role: "img", "aria-label": label });
    this.over = el("canvas", { class: "over", "aria-hidden": "true" });
    host.append(this.base, this.over);
    this.image = null;
    this.overlays = [];
    this.align = 0.5;
    this.over.addEventListener("pointermove", (event) => onProbe(this.fraction(event)));
    this.over.addEventListener("pointerleave", () => onProbe(null));
    new ResizeObserver(() => this.resize()).observe(host);
  }

  /** The pixels to fill, as 32-bit words; `draw` shows them. */
  pixels(width, height) {
    if (!this.image || this.image.width !== width || this.image.height !== height) {
      this.hidden = el("canvas", { width, height });
      // Without the hint the browser keeps the canvas where every putImageData is a slow upload.
      this.context = this.hidden.getContext("2d", { willReadFrequently: true });
      this.image = this.context.createImageData(width, height);
      this.words = new Uint32Array(this.image.data.buffer);
      this.place();
      this.paintOver();
    }
    return this.words;
  }

  draw() {
    if (!this.image) return;
    this.context.putImageData(this.image, 0, 0);
    this.paint();
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    for (const canvas of [this.base, this.over]) {
      canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
      canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    }
    this.place();
    this.paint();
    this.paintOver();
  }

  /** Where the image lies on the canvas, in canvas pixels: as large as fits, its shape kept. */
  place() {
    if (!this.image) return;
    const { width, height } = this.base;
    const scale = Math.min(width / this.image.width, height / this.image.height);
    const w = this.image.width * scale, h = this.image.height * scale;
    this.box = { x: (width - w) * this.align, y: (height - h) / 2, w, h };
  }

  paint() {
    if (!this.image || !this.box) return;
    const context = (this.shown ??= this.base.getContext("2d", { willReadFrequently: true }));
    const { x, y, w, h } = this.box;
    context.imageSmoothingEnabled = w < this.image.width;
    context.clearRect(0, 0, this.base.width, this.base.height);
    context.drawImage(this.hidden, x, y, w, h);
  }

  /** Called when something on it changes, which a new frame does not. */
  paintOver() {
    if (!this.box) return;
    const context = (this.drawn ??= this.over.getContext("2d"));
    context.clearRect(0, 0, this.over.width, this.over.height);
    for (const overlay of this.overlays) overlay(context, this.box, window.devicePixelRatio || 1);
  }

  fraction(event) {
    if (!this.box) return null;
    const bounds = this.over.getBoundingClientRect();
    const x = ((event.clientX - bounds.left) / bounds.width) * this.over.width;
    const y = ((event.clientY - bounds.top) / bounds.height) * this.over.height;
    const found = { x: (x - this.box.x) / this.box.w, y: (y - this.box.y) / this.box.h };
    return found.x >= 0 && found.x < 1 && found.y >= 0 && found.y < 1 ? found : null;
  }
}

/** What all images show above their own: the cursor, a region that is being drawn. */
export function sharedOverlays(page) {
  return (...at) => page.overlays.forEach((overlay) => overlay(...at));
}

export function cursorOverlay(page) {
  return (context, { x, y, w, h }, ratio) => {
    if (page.cursor) cross(context, x + page.cursor.x * w, y + page.cursor.y * h, ratio);
  };
}

export function cross(context, cx, cy, ratio) {
  ratio *= typeScale();
  const gap = 5 * ratio, arm = 14 * ratio;
  for (const [colour, thick] of [["rgb(0 0 0 / 0.6)", 3], ["#fff", 1]]) {
    context.strokeStyle = colour;
    context.lineWidth = thick * ratio;
    context.beginPath();
    for (const sign of [-1, 1]) {
      context.moveTo(cx + sign * gap, cy);
      context.lineTo(cx + sign * arm, cy);
      context.moveTo(cx, cy + sign * gap);
      context.lineTo(cx, cy + sign * arm);
    }
    context.stroke();
  }
}

/** A scale bar of a round length, at most a third of the image. `widthOf()` gives the image's width in metres. */
export function scaleBarOverlay(widthOf) {
  return (context, { x, y, w, h }, ratio) => {
    const metres = widthOf();
    if (!metres) return;
    ratio *= typeScale();
    const bar = niceBelow(metres / 3), long = (bar / metres) * w, margin = 9 * ratio;
    const left = x + margin, bottom = y + h - margin;
    context.font = `600 ${12 * ratio}px system-ui, sans-serif`;
    const text = length(bar, 1);
    context.fillStyle = "rgb(0 0 0 / 0.55)";
    const wide = Math.max(long, context.measureText(text).width);
    context.fillRect(left - 5 * ratio, bottom - 21 * ratio, wide + 10 * ratio, 26 * ratio);
    context.fillStyle = "#fff";
    context.fillRect(left, bottom - 3 * ratio, long, 3 * ratio);
    context.fillText(text, left, bottom - 8 * ratio);
  };
}
