// Arithmetic on images: ranges, slopes and normals, lines through a map, and the step on a line.
// A field is {data, width, height, pixelSize}, rows from the top, lengths in metres.

const RANGE_SAMPLES = 16384;

/** The values between which all but `tail` of the pixels lie on each side. */
export function rangeOf(data, tail) {
  const stride = Math.max(1, Math.floor(data.length / RANGE_SAMPLES)) | 1;
  const sample = new Float32Array(Math.ceil(data.length / stride));
  let count = 0;
  for (let i = 0; i < data.length; i += stride) if (Number.isFinite(data[i])) sample[count++] = data[i];
  if (!count) return [0, 1];
  const low = smallest(sample, count, Math.floor(tail * (count - 1)));
  const high = smallest(sample, count, Math.ceil((1 - tail) * (count - 1)));
  return high > low ? [low, high] : [low, low + Math.max(Math.abs(low) * 1e-6, 1e-12)];
}

/** The value that would stand at `place` if the first `count` were sorted (Hoare's selection; they change places). */
function smallest(values, count, place) {
  let from = 0, to = count - 1;
  while (from < to) {
    const pivot = values[place];
    let i = from, j = to;
    while (i <= j) {
      while (values[i] < pivot) i++;
      while (pivot < values[j]) j--;
      if (i > j) break;
      const moved = values[i];
      values[i++] = values[j];
      values[j--] = moved;
    }
    if (j < place) from = i;
    if (place < i) to = j;
  }
  return values[place];
}

/** Slopes dz/dx (to the right) and dz/dy (downwards) by central differences. */
export function slopeAt({ data, width, height, pixelSize }, column, row) {
  const left = Math.max(0, column - 1), right = Math.min(width - 1, column + 1);
  const up = Math.max(0, row - 1), down = Math.min(height - 1, row + 1);
  return {
    p: (data[row * width + right] - data[row * width + left]) / ((right - left) * pixelSize),
    q: (data[down * width + column] - data[up * width + column]) / ((down - up) * pixelSize),
  };
}

export function normalOf({ p, q }) {
  const size = Math.sqrt(1 + p * p + q * q);
  return [-p / size, -q / size, 1 / size];
}

/** Normals as colours: red to the right, green to the top of the image, blue to the detector. */
export function paintNormals(field, pixels) {
  const { data, width, height, pixelSize } = field;
  const inside = 0.5 / pixelSize, edge = 1 / pixelSize;
  for (let row = 0; row < height; row++) {
    const start = row * width, end = start + width - 1;
    const up = row ? width : 0, down = row < height - 1 ? width : 0, perRow = up && down ? inside : edge;
    for (let at = start; at <= end; at++) {
      const p = at === start ? (data[at + 1] - data[at]) * edge
        : at === end ? (data[at] - data[at - 1]) * edge : (data[at + 1] - data[at - 1]) * inside;
      const q = (data[at + down] - data[at - up]) * perRow;
      const half = 127.5 / Math.sqrt(1 + p * p + q * q);
      pixels[at] = 0xff000000 | ((127.5 + half) << 16) | ((127.5 + q * half) << 8) | (127.5 - p * half);
    }
  }
}

/** Paint values between `low` and `high` through a table of colours. */
export function paintMapped(data, low, high, table, pixels) {
  const last = table.length - 1, scale = (last + 0.999) / (high - low);
  for (let i = 0; i < data.length; i++) {
    const index = (data[i] - low) * scale;
    pixels[i] = table[index < 0 ? 0 : index > last ? last : index | 0];
  }
}

export function valueAt({ data, width, height }, fraction, offset = 0) {
  const column = Math.min(width - 1, Math.max(0, Math.floor(fraction.x * width)));
  const row = Math.min(height - 1, Math.max(0, Math.floor(fraction.y * height)));
  return { column, row, value: data[offset + row * width + column] };
}

/** Heights along a line given in fractions of the image, averaged over `wide` pixels across it. */
export function alongLine(field, line, wide) {
  const { width, height, pixelSize } = field;
  const ax = line.x0 * width - 0.5, ay = line.y0 * height - 0.5;
  const dx = (line.x1 - line.x0) * width, dy = (line.y1 - line.y0) * height;
  const lengthPx = Math.hypot(dx, dy);
  const count = Math.max(8, Math.min(1024, Math.round(lengthPx) + 1));
  const across = { x: -dy / lengthPx, y: dx / lengthPx };
  const distance = new Float64Array(count), heights = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    const share = i / (count - 1);
    let sum = 0;
    for (let k = 0; k < wide; k++) {
      const aside = k - (wide - 1) / 2;
      sum += bilinear(field, ax + share * dx + aside * across.x, ay + share * dy + aside * across.y);
    }
    distance[i] = share * lengthPx * pixelSize;
    heights[i] = sum / wide;
  }
  return { distance, heights };
}

export function bilinear({ data, width, height }, x, y) {
  const cx = Math.min(Math.max(x, 0), width - 1.001), cy = Math.min(Math.max(y, 0), height - 1.001);
  const column = cx | 0, row = cy | 0, fx = cx - column, fy = cy - row, at = row * width + column;
  const top = data[at] + (data[at + 1] - data[at]) * fx;
  const bottom = data[at + width] + (data[at + width + 1] - data[at + width]) * fx;
  return top + (bottom - top) * fy;
}

const EDGE = 0.06;

/**
 * The step h = a + b x + s [x > x0] that fits best, by least squares at every x0 between 8 and 92 % of the line; then
 * once more without the edge itself, which no image resolves (as ISO 5436-1 leaves it out).
 * Neighbouring pixels of a height map are not independent: sigmas are widened by their correlation (AR(1)).
 */
export function fitStep(distance, heights) {
  const n = distance.length, end = distance[n - 1];
  const x = Array.from(distance, (d) => d / end);
  let rough = null;
  for (let cut = Math.ceil(0.08 * n); cut < 0.92 * n; cut++) {
    const found = solveStep(x, heights, cut, 0);
    if (found && (!rough || found.chi2 < rough.chi2)) rough = found;
  }
  const best = rough && solveStep(x, heights, rough.cut, Math.round(EDGE * n));
  if (!best) return null;
  const [a, b, s] = best.parameters;
  const variance = best.chi2 / Math.max(1, best.count - 3), widening = wideningOf(x, heights, best);
  const slope = b / end, sigmaSlope = Math.sqrt(variance * widening * best.covariance[1]) / end;
  return {
    cut: best.cut, base: a, rise: b, step: s,
    sigmaStep: Math.sqrt(variance * widening * best.covariance[2]),
    angle: (Math.atan(slope) * 180) / Math.PI,
    sigmaAngle: ((sigmaSlope / (1 + slope * slope)) * 180) / Math.PI,
  };
}

/** By how much correlated neighbours widen a variance: (1 + rho) / (1 - rho). */
function wideningOf(x, heights, { parameters: [a, b, s], cut, gap, chi2 }) {
  let lagged = 0, before = 0;
  for (let i = 0; i < x.length; i++) {
    const left = Math.abs(i - cut) < gap ? 0 : heights[i] - a - b * x[i] - (i >= cut ? s : 0);
    lagged += left * before;
    before = left;
  }
  const rho = Math.min(0.98, Math.max(0, lagged / Math.max(chi2, 1e-300)));
  return (1 + rho) / (1 - rho);
}

/** Least squares for one place of the step, without the `gap` pixels on either side of it. */
function solveStep(x, h, cut, gap) {
  let n = 0, m = 0, sx = 0, sxx = 0, sh = 0, sxh = 0, tx = 0, th = 0;
  for (let i = 0; i < x.length; i++) {
    if (Math.abs(i - cut) < gap) continue;
    n++; sx += x[i]; sxx += x[i] * x[i]; sh += h[i]; sxh += x[i] * h[i];
    if (i >= cut) { m++; tx += x[i]; th += h[i]; }
  }
  const inverse = m > 1 && n - m > 1 ? invert([[n, sx, m], [sx, sxx, tx], [m, tx, m]]) : null;
  if (!inverse) return null;
  const right = [sh, sxh, th];
  const parameters = inverse.map((row) => row[0] * right[0] + row[1] * right[1] + row[2] * right[2]);
  const [a, b, s] = parameters;
  let chi2 = 0;
  for (let i = 0; i < x.length; i++) {
    if (Math.abs(i - cut) >= gap) chi2 += (h[i] - a - b * x[i] - (i >= cut ? s : 0)) ** 2;
  }
  return { cut, gap, count: n, parameters, chi2, covariance: [inverse[0][0], inverse[1][1], inverse[2][2]] };
}

function invert([[a, b, c], [d, e, f], [g, h, i]]) {
  const A = e * i - f * h, B = f * g - d * i, C = d * h - e * g, det = a * A + b * B + c * C;
  if (Math.abs(det) < 1e-12) return null;
  return [
    [A / det, (c * h - b * i) / det, (b * f - c * e) / det],
    [B / det, (a * i - c * g) / det, (c * d - a * f) / det],
    [C / det, (b * g - a * h) / det, (a * e - b * d) / det],
  ];
}
