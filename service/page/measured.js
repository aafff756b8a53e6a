// What the service measures along the profile's line on the newest recorded frame: step, angles, their uncertainties.

import { ofFrame } from "./recorded.js";
import { length, lengthUnit, withSigma } from "./units.js";

/** Everything about a line, given in shares of the image, on the frame `at`; `wide` in pixels of the shown field. */
export function measureLine({ live, field }, { line, wide }, at) {
  const [height, width] = live.frame.shape.slice(-2);
  const x = (share) => Math.min(width - 1, Math.max(0, share * width - 0.5)).toFixed(2);
  const y = (share) => Math.min(height - 1, Math.max(0, share * height - 0.5)).toFixed(2);
  const widthPx = Math.min(256, Math.round((wide * width) / field.width));
  const where = { x0_px: x(line.x0), y0_px: y(line.y0), x1_px: x(line.x1), y1_px: y(line.y1), width_px: widthPx };
  return ofFrame(at, `profile?${new URLSearchParams(where)}`);
}

/** The step with its combined standard uncertainty, and whether images or heights tell it. */
export function stepText({ step, budgets }) {
  if (!step) return null;
  const unit = lengthUnit(step.height_m), sigma = budgets?.[0]?.sigma ?? step.sigma_m;
  return `step ${withSigma(step.height_m * unit.factor, sigma * unit.factor, unit.name)} from the ${step.method}`;
}

/** Edges in order, each with its place on the line, from the images where faces could be fitted to them. */
export function edgesOf({ fit, edges, distances_m: distances, pixel_size_m: pixel }) {
  if (!fit) return edges.map((edge) => ({ at: edge.edge_m, angle: edge.external_deg, sigma: edge.sigma_deg, convex: edge.convex }));
  // The fit may push an edge that it has no use for beyond the line.
  return fit.external_deg.map((angle, index) => ({
    at: fit.edges_px[index] * pixel, angle: 180 - Math.abs(180 - angle), sigma: fit.external_sigma_deg[index], convex: angle > 180,
  })).filter(({ at }) => at >= 0 && at <= distances.at(-1));
}

export function anglesText(tree) {
  const edges = edgesOf(tree);
  if (!edges.length) return null;
  const told = edges.map(({ at, angle, sigma, convex }) => `${withSigma(angle, sigma, "°")} ${convex ? "convex" : "concave"} at ${length(at)}`);
  const narrow = tree.edges.some(({ before, behind }) => before.narrow || behind.narrow);
  if (!tree.fit) return `angle from the height profile: ${told.join(", ")}${narrow ? "; faces below 8 px may be off by degrees" : ""}`;
  const shadowed = tree.fit.shadowed ? "; a face may lie in shadow" : "";
  return `angle from the images: ${told.join(", ")} · χ² ${tree.fit.reduced_chi2.toFixed(2)}${shadowed}`;
}

const SUBJECTS = { step: "step", step_in_images: "step in the images", facet: "angle in the profile", fit: "angle in the images" };

export function reasonsText({ reasons }) {
  return Object.entries(reasons).map(([name, why]) => `${SUBJECTS[name] ?? name}: ${why}`).join(" · ");
}
