// Facets of the recorded frame that is shown: a table, and their outlines and numbers over the height pane.

import { $, el, setText, typeScale } from "./dom.js";
import { Newest, ofFrame } from "./recorded.js";
import { digits, withSigma } from "./units.js";

const SHOWN = 12;
const UM2_PER_M2 = 1e12;

export class FacetsCard {
  constructor(page, heightPane) {
    this.page = page;
    this.pane = heightPane.pane;
    this.card = $("facets");
    this.service = new Newest(page, async ({ crystal, top }, at) => {
      const tree = await ofFrame(at, `facets?${new URLSearchParams({ crystal, top_family: top })}`);
      return { ...tree, outline: await outlineOf(at) };
    }, () => this.draw());
    this.pane.overlays.push((...at) => this.paint(...at));
    this.card.ontoggle = () => this.follow();
    for (const id of ["facets-crystal", "facets-top"]) $(id).onchange = () => this.follow();
  }

  /** Only while somebody looks: it takes time that the run could use. */
  follow() {
    const wish = { crystal: $("facets-crystal").value.trim(), top: $("facets-top").value.trim() };
    this.service.ask(this.card.open && this.page.live ? wish : null);
    if (!this.service.told) this.draw();
  }

  get found() {
    return this.service.told?.tree?.facets.slice(0, SHOWN) ?? [];
  }

  draw() {
    const { tree, reason, sequence } = this.service.told ?? {};
    setText($("facets-now"), tree ? `${tree.facets_in_all} on frame ${sequence}` : "");
    setText($("facets-why"), reason ?? (tree?.reasons.names ? `no names: ${tree.reasons.names}` : ""));
    const left = (tree?.facets_in_all ?? 0) - this.found.length;
    setText($("facets-line"), left > 0 ? `and ${left} smaller ones` : "");
    const head = ["№", "inclination", "azimuth", "µm²", "face"].map((text) => el("th", { scope: "col" }, text));
    $("facets-table").replaceChildren(...(this.found.length ? [el("tr", {}, ...head)] : []), ...this.found.map((facet) => this.row(facet, tree)));
    this.pane.paintOver();
  }

  row(facet, { names, top }) {
    const named = names.find((one) => one.number === facet.number);
    const candidates = named && `${named.angle_deg.toFixed(1)}° from the top; ${named.family} has ${named.expected_deg.toFixed(1)}°; agree: ${named.candidates.join(", ") || "none"}`;
    return el("tr", { title: candidates ?? "" }, el("th", { scope: "row" }, String(facet.number)),
      el("td", {}, withSigma(facet.inclination_deg, facet.sigma_inclination_deg, "°")),
      el("td", {}, withSigma(facet.azimuth_deg, facet.sigma_azimuth_deg, "°")),
      el("td", {}, digits(facet.area_m2 * UM2_PER_M2, 2)),
      el("td", {}, facet.number === top ? `{${$("facets-top").value.trim()}} top` : named?.family ?? "–"));
  }

  /** Where facets end, and the number of each at its middle. */
  paint(context, { x, y, w, h }, ratio) {
    if (!this.card.open || !this.found.length || !this.page.live) return;
    const [height, width] = this.page.live.frame.shape.slice(-2), { outline } = this.service.told.tree;
    if (outline) context.drawImage(outline, x, y, w, h);
    context.font = `600 ${11 * ratio * typeScale()}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineWidth = 3 * ratio;
    context.strokeStyle = "rgb(0 0 0 / 0.7)";
    context.fillStyle = "#fff";
    for (const { number, centre_px: [column, row] } of this.found) {
      const at = [String(number), x + ((column + 0.5) / width) * w, y + ((row + 0.5) / height) * h];
      context.strokeText(...at);
      context.fillText(...at);
    }
    context.textAlign = "start";
    context.textBaseline = "alphabetic";
  }
}

/** A canvas of the frame's own pixels with those drawn at which another facet begins. */
async function outlineOf({ runId, sequence }) {
  const answer = await fetch(`/api/v1/runs/${encodeURIComponent(runId)}/heights/${sequence}/facets/labels`, { headers: { Accept: "image/png" } });
  if (!answer.ok) return null;
  const labels = await createImageBitmap(await answer.blob(), { colorSpaceConversion: "none" });
  const { width, height } = labels, canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(labels, 0, 0);
  const image = context.getImageData(0, 0, width, height), pixels = new Uint32Array(image.data.buffer), found = pixels.slice();
  for (let at = 0; at < pixels.length; at++) {
    const endsHere = (at % width < width - 1 && found[at] !== found[at + 1]) || (at + width < found.length && found[at] !== found[at + width]);
    pixels[at] = endsHere ? 0xb0ffffff : 0;
  }
  context.putImageData(image, 0, 0);
  return canvas;
}
