// Colour tables: those of the service by name, and a diverging one of our own for residuals on a dark screen.

import { get } from "./socket.js";

const tables = new Map();

/** 256 colours as the 32-bit words of a canvas (alpha, blue, green, red); grey until the service has answered. */
export function table(name) {
  if (!tables.has(name)) {
    tables.set(name, grey());
    get(`/colormaps/${name}`)
      .then(({ rgb }) => tables.set(name, Uint32Array.from(rgb, ([r, g, b]) => word(r, g, b))))
      .catch(() => tables.delete(name));
  }
  return tables.get(name);
}

const STEPS = 1024;
const STRETCH = 100;
const stretches = new WeakMap();

/** The same colours crowded towards the low end, by log(1 + 100 t): what is low tells its differences. */
export function logarithmic(colours) {
  if (!stretches.has(colours)) {
    stretches.set(colours, Uint32Array.from({ length: STEPS }, (_, i) =>
      colours[Math.round((255 * Math.log1p((STRETCH * i) / (STEPS - 1))) / Math.log1p(STRETCH))]));
  }
  return stretches.get(colours);
}

const word = (r, g, b) => (0xff000000 | (b << 16) | (g << 8) | r) >>> 0;

function grey() {
  return Uint32Array.from({ length: 256 }, (_, i) => word(i, i, i));
}

/** Blue below zero, orange above; nothing to see where a pixel is as expected. */
export const diverging = Uint32Array.from({ length: 256 }, (_, i) => {
  const t = (i - 127.5) / 127.5, s = Math.abs(t) ** 0.8;
  const [r, g, b] = t < 0 ? [86, 156, 255] : [255, 150, 54];
  const mix = (end) => Math.round(22 + (end - 22) * s);
  return word(mix(r), mix(g), mix(b));
});

export function css(colour) {
  return `rgb(${colour & 255} ${(colour >> 8) & 255} ${(colour >> 16) & 255})`;
}

export const greyTable = grey();
