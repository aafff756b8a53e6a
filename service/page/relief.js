// The relief: a height map seen from the side, cast column by column on the CPU, from the front to the back.

import { $, setText } from "./dom.js";
import { cross } from "./pane.js";
import { niceBelow } from "./units.js";

const MAX_SIDE_PX = 640;
const MAX_FIELD_PX = 300;
const LIGHT = [-0.5, -0.45, 0.74];
const GROUND = 0xff161311;
const WALL = 0xff332c27;
const NOTHING = -1;

export class Relief {
  constructor(page) {
    this.page = page;
    this.canvas = $("relief");
    this.yaw = 0.6;
    this.tilt = 0.62;
    this.zoom = 1.03;
    this.exaggeration = null;
    this.field = null;
    this.slider = $("relief-slider");
    this.slider.oninput = () => {
      this.exaggeration = rounded(0.5 * 200 ** (this.slider.value / 100));
      this.draw();
    };
    this.listen();
    new ResizeObserver(() => {
      this.size = null;
      this.draw();
    }).observe(this.canvas.parentElement);
  }

  listen() {
    const canvas = this.canvas;
    canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
    canvas.addEventListener("pointermove", (event) => {
      if (canvas.hasPointerCapture(event.pointerId)) this.turn(event.movementX * 0.008, event.movementY * 0.006);
      else this.page.probe(this.under(event));
    });
    canvas.addEventListener("pointerleave", () => this.page.probe(null));
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom = Math.min(4, Math.max(0.5, this.zoom * (event.deltaY > 0 ? 0.92 : 1.09)));
      this.draw();
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.08], ArrowDown: [0, 0.08] }[event.key];
      if (!way) return;
      event.preventDefault();
      event.stopPropagation();
      this.turn(...way);
    });
  }

  turn(yaw, tilt) {
    this.yaw -= yaw;
    this.tilt = Math.min(1.5, Math.max(0.08, this.tilt + tilt));
    this.draw();
  }

  /** `range` and `colours` are those of the height pane, so that one colour means one height. */
  show(field, range, colours) {
    this.field = thinned(field);
    this.range = range;
    this.colours = colours;
    if (this.exaggeration === null) this.chooseExaggeration();
    this.draw();
  }

  /** At first a fifth of the image's width is as high as the map; from then on it is the operator's. */
  chooseExaggeration() {
    const wide = this.field.width * this.field.pixelSize;
    this.exaggeration = Math.min(100, Math.max(1, niceBelow((0.22 * wide) / (this.range[1] - this.range[0]))));
    this.slider.value = (100 * Math.log(this.exaggeration / 0.5)) / Math.log(200);
  }

  draw() {
    if (!this.field) return;
    setText($("relief-z"), `z × ${this.exaggeration}`);
    this.slider.setAttribute("aria-valuetext", `z times ${this.exaggeration}`);
    const { width, height } = (this.size ??= this.room());
    if (this.image?.width !== width || this.image.height !== height) {
      Object.assign(this.canvas, { width, height });
      this.context = this.canvas.getContext("2d", { willReadFrequently: true });
      this.image = this.context.createImageData(width, height);
      this.pixels = new Uint32Array(this.image.data.buffer);
      this.seen = new Int32Array(width * height);
    }
    this.pixels.fill(GROUND);
    this.seen.fill(NOTHING);
    this.cast(this.pixels, width, height);
    this.context.putImageData(this.image, 0, 0);
    this.mark();
  }

  /** As large as it is shown, but not larger than can be cast at the live rate. To ask makes the browser lay out. */
  room() {
    const { clientWidth, clientHeight } = this.canvas.parentElement, ratio = window.devicePixelRatio || 1;
    const shrink = ratio * Math.min(1, MAX_SIDE_PX / (Math.max(clientWidth, clientHeight, 1) * ratio));
    return { width: Math.max(16, Math.round(clientWidth * shrink)), height: Math.max(16, Math.round(clientHeight * shrink)) };
  }

  /** Which place of the map is seen under the pointer, in shares of the image. */
  under(event) {
    const bounds = this.canvas.getBoundingClientRect(), { width, height } = this.canvas;
    const x = Math.floor(((event.clientX - bounds.left) / bounds.width) * width);
    const y = Math.floor(((event.clientY - bounds.top) / bounds.height) * height);
    const at = this.seen?.[y * width + x] ?? NOTHING;
    if (at === NOTHING) return null;
    const { width: columns, height: rows } = this.field;
    return { x: ((at % columns) + 0.5) / columns, y: (Math.floor(at / columns) + 0.5) / rows };
  }

  /** The cursor of the images, on the map. */
  mark() {
    const over = $("relief-over"), { width, height } = this.canvas, cursor = this.page.cursor;
    const resized = over.width !== width || over.height !== height;
    if (!resized && !cursor && !this.marked) return;
    if (resized) Object.assign(over, { width, height });
    const context = over.getContext("2d");
    context.clearRect(0, 0, width, height);
    this.marked = Boolean(cursor && this.project);
    if (!this.marked) return;
    const { data, width: columns, height: rows } = this.field;
    const column = Math.min(columns - 1, Math.floor(cursor.x * columns)), row = Math.min(rows - 1, Math.floor(cursor.y * rows));
    const { x, y } = this.project(column, row, data[row * columns + column]);
    cross(context, x, y, width / this.canvas.clientWidth);
  }

  /** Lengths in field pixels; every column walks away from the eye and draws what rises above what it has drawn. */
  cast(pixels, width, height) {
    const { data, width: columns, height: rows, pixelSize } = this.field;
    const [low, high] = this.range, middle = (low + high) / 2;
    const sinY = Math.sin(this.yaw), cosY = Math.cos(this.yaw), sinT = Math.sin(this.tilt), cosT = Math.cos(this.tilt);
    const lift = this.exaggeration / pixelSize, shades = this.shades(lift);
    const across = Math.hypot(columns, rows), tall = across * sinT + (high - low) * lift * cosT;
    const scale = this.zoom * 0.96 * Math.min(width / across, height / Math.max(tall, 1));
    const base = ((low - middle) * lift - 0.02 * columns) * cosT;
    const last = this.colours.length - 1, mapped = (last + 0.999) / (high - low), step = Math.min(1, 1 / (scale * Math.max(sinT, 0.3)));
    const reach = across / 2, { seen, colours } = this;
    // One column from `to` up to `from`; `place` is what is seen there. What it reads lies in this function: a canvas is slow to ask.
    const fill = (column, from, to, colour, place) => {
      const start = Math.max(0, Math.floor(from)), end = to * width;
      for (let at = start * width + column; at < end; at += width) {
        pixels[at] = colour;
        seen[at] = place;
      }
      return Math.min(to, start);
    };
    this.project = (u, v, z) => {
      const right = u - columns / 2, down = v - rows / 2, d = right * sinY - down * cosY;
      const lifted = (Math.min(high, Math.max(low, z)) - middle) * lift * cosT;
      return { x: width / 2 + (right * cosY + down * sinY) * scale, y: height / 2 - (d * sinT + lifted) * scale };
    };
    for (let c = 0; c < width; c++) {
      const aside = (c - width / 2) / scale;
      const u0 = columns / 2 + aside * cosY, v0 = rows / 2 + aside * sinY;
      let drawn = height, first = true;
      for (let d = -reach; d < reach; d += step) {
        const u = u0 + d * sinY, v = v0 - d * cosY;
        if (u < 0 || v < 0 || u >= columns - 1 || v >= rows - 1) continue;
        const at = (v | 0) * columns + (u | 0), fu = u - (u | 0), fv = v - (v | 0);
        const top = data[at] + (data[at + 1] - data[at]) * fu;
        const bottom = data[at + columns] + (data[at + columns + 1] - data[at + columns]) * fu;
        const z = Math.min(high, Math.max(low, top + (bottom - top) * fv));
        const y = height / 2 - (d * sinT + (z - middle) * lift * cosT) * scale;
        if (first) {
          first = false;
          drawn = Math.min(height, Math.ceil(height / 2 - (d * sinT + base) * scale));
          drawn = fill(c, y, drawn, WALL, NOTHING);
        }
        if (y < drawn) {
          const index = (z - low) * mapped;
          drawn = fill(c, y, drawn, dimmed(colours[index > last ? last : index | 0], shades[at]), at);
        }
      }
    }
  }

  /** How bright the light makes each pixel, 0 to 255, with the exaggerated slopes that are seen. */
  shades(lift) {
    const { data, width, height } = this.field, shades = new Uint8Array(width * height);
    const size = Math.hypot(...LIGHT), [lx, ly, lz] = LIGHT.map((part) => part / size);
    for (let row = 1; row < height - 1; row++) {
      for (let at = row * width + 1; at < (row + 1) * width - 1; at++) {
        const p = (data[at + 1] - data[at - 1]) * 0.5 * lift, q = (data[at + width] - data[at - width]) * 0.5 * lift;
        const lit = (-p * lx - q * ly + lz) / Math.sqrt(1 + p * p + q * q);
        shades[at] = 70 + 185 * (lit > 0 ? lit : 0);
      }
      shades[row * width] = shades[row * width + 1];
    }
    shades.copyWithin(0, width, 2 * width);
    return shades;
  }
}

function dimmed(colour, shade) {
  const r = ((colour & 255) * shade) >> 8, g = (((colour >> 8) & 255) * shade) >> 8;
  const b = (((colour >> 16) & 255) * shade) >> 8;
  return 0xff000000 | (b << 16) | (g << 8) | r;
}

/** The map by area averages, small enough to be cast at the live rate. */
function thinned(field) {
  const factor = Math.ceil(Math.max(field.width, field.height) / MAX_FIELD_PX);
  if (factor <= 1) return field;
  const width = Math.floor(field.width / factor), height = Math.floor(field.height / factor);
  const data = new Float32Array(width * height);
  for (let row = 0; row < height * factor; row++) {
    const to = Math.floor(row / factor) * width, from = row * field.width;
    for (let column = 0; column < width; column++) {
      let sum = 0;
      for (let k = 0; k < factor; k++) sum += field.data[from + column * factor + k];
      data[to + column] += sum / (factor * factor);
    }
  }
  return { data, width, height, pixelSize: field.pixelSize * factor };
}

const rounded = (value) => Number(value.toPrecision(2));
