// From the overview to a place in it, and back: a click or a rectangle on an image becomes the centre of the frame, or a
// rectangle the whole of it, at finer pixels.

import { $, attempt, permit, setText } from "./dom.js";
import { get, post } from "./socket.js";
import { length } from "./units.js";

const AXES = "eclips-stage-axes";
const SMALLEST = 0.03;
const HINT = "click a place on an image, or drag a rectangle round it; Esc ends this";

export class Region {
  constructor(page) {
    this.page = page;
    this.line = $("stage-line");
    this.places = [];
    this.picking = false;
    this.drawn = null;
    page.overlays.push((...at) => this.paint(...at));
    // How the stage's axes lie in the image is the lab's own: no stage tells it.
    const axes = $("region-axes");
    axes.value = localStorage.getItem(AXES) ?? axes.value;
    axes.onchange = () => localStorage.setItem(AXES, axes.value);
    $("region-pick").onclick = () => this.pick(!this.picking);
    $("region-yes").onclick = () => this.go();
    $("region-scan").onclick = () => this.go(this.finer);
    $("region-no").onclick = () => this.end();
    $("region-back").onclick = () => this.back();
    this.listen();
  }

  /** Before anything else that a press on an image does, such as a profile or a zoom. */
  listen() {
    const during = (event) => this.picking && this.page.imagePanes.find((pane) => pane.over === event.target);
    const on = (kind, act) => document.addEventListener(kind, (event) => {
      const pane = during(event);
      if (!pane) return;
      event.preventDefault();
      event.stopPropagation();
      act(event, pane.fraction(event));
    }, true);
    document.addEventListener("pointerdown", () => (this.chose = false), true);
    on("pointerdown", (event, at) => {
      this.start = at;
      event.target.setPointerCapture(event.pointerId);
    });
    on("pointermove", (_, at) => this.start && at && this.draw(between(this.start, at)));
    on("pointerup", (_, at) => {
      this.chose = true;
      if (this.start) this.ask(between(this.start, at ?? this.start));
      this.start = null;
    });
    // The click that ends the choice arrives when it has ended; it must not press what lies under the image.
    document.addEventListener("click", (event) => {
      if (this.chose && event.detail > 0) event.stopPropagation();
      this.chose = false;
    }, true);
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.picking && this.end());
  }

  pick(on) {
    this.end();
    this.picking = on;
    document.body.classList.toggle("picking", on);
    $("region-pick").setAttribute("aria-pressed", String(on));
    setText(this.line, on ? HINT : "");
  }

  end() {
    this.picking = false;
    this.start = this.wanted = this.finer = null;
    document.body.classList.remove("picking");
    $("region-pick").setAttribute("aria-pressed", "false");
    $("region-confirm").hidden = true;
    if (this.line.textContent === HINT) setText(this.line, "");
    this.draw(null);
  }

  draw(rectangle) {
    this.drawn = rectangle;
    for (const pane of this.page.imagePanes) pane.paintOver();
  }

  ask({ x, y, w, h }) {
    const { shape: [, rows, columns], pixel_size_m: pixel } = this.page.live.frame;
    const [right, down] = $("region-axes").value.split(",").map(Number), here = this.here();
    const by = { x_m: right * (x + w / 2 - 0.5) * columns * pixel, y_m: down * (y + h / 2 - 0.5) * rows * pixel };
    this.end();
    this.draw({ x, y, w, h });
    this.wanted = { x_m: here.x_m + by.x_m, y_m: here.y_m + by.y_m };
    const isRegion = w > SMALLEST && h > SMALLEST;
    // Pixels keep their number: the longer side of the rectangle fills the frame.
    this.finer = isRegion ? Math.max(w, h) * pixel : null;
    const size = isRegion
      ? ` The region is ${length(w * columns * pixel)} wide: ${length(this.finer, 2)} a pixel would fill the frame; scanning it ends this run, which brings laser and gas to rest.` : "";
    setText($("region-question"), `Move the stage by ${micrometres(by)} to ${micrometres(this.wanted)} µm?${size}`);
    $("region-scan").hidden = !isRegion;
    this.permitScan();
    $("region-confirm").hidden = false;
    $("region-yes").focus();
  }

  async go(finer = null) {
    const wanted = this.wanted, left = { ...this.here(), pixel: finer && this.page.live.frame.pixel_size_m };
    this.end();
    // A move that ends elsewhere has left the old place all the same.
    this.places.push(left);
    await this.move(wanted, finer);
  }

  async back() {
    const { pixel, ...place } = this.places.at(-1);
    if (await this.move(place, pixel)) this.places.pop();
  }

  /** With a pixel size, the run at hand ends and another one scans the new place with it. */
  move(place, pixel = null) {
    const [, rows, columns] = this.page.live?.frame.shape ?? [];
    return attempt(this.line, async () => {
      // Asked anew: the page may not have heard yet that the run before was begun.
      const { state, run } = await get("/status");
      if (pixel && state === "acquiring") await post("/run:stop");
      setText(this.line, "moving…");
      const { reached } = await post(`/devices/${this.stage}/setpoints`, place);
      if (pixel) {
        await post("/run", {
          pixel_size_m: pixel, width_px: columns, height_px: rows, record: run?.recording ?? false,
          name: $("run-name").value || "run", fuse_frames: run?.fuse_frames,
        });
      }
      return reached;
    }, (reached) => `reached ${micrometres(reached)} µm${pixel ? `, ${length(pixel, 2)} a pixel` : ""}`);
  }

  permitScan() {
    const { low, high } = this.detector?.limits.pixel_size_m ?? {}, { finer } = this;
    permit([$("region-scan")], !finer ? "" : finer < low ? `${length(finer, 2)} a pixel is below the detector's ${length(low, 2)}: draw a larger region`
      : finer > high ? `${length(finer, 2)} a pixel is above the detector's ${length(high, 2)}: draw a smaller region` : "");
  }

  here() {
    const { x_m, y_m } = this.page.status.devices[this.stage].readings;
    return { x_m: x_m.value, y_m: y_m.value };
  }

  show(status, locked) {
    const [name, stage] = Object.entries(status.devices).find(([, one]) => one.kind === "stage") ?? [];
    $("region-row").hidden = !stage;
    if (!stage) return;
    this.stage = name;
    this.detector = Object.values(status.devices).find((one) => one.kind === "segmented_detector");
    const { x_m, y_m, moving } = stage.readings, known = stage.connected && x_m?.valid && y_m?.valid;
    const still = locked || (!known ? `where ${name} stands is not known` : moving?.value > 0 ? "the stage is moving; wait, or stop it" : "");
    const live = this.page.frozen ? "lift the freeze first: the stage may have moved since that picture"
      : status.state !== "acquiring" || !this.page.live ? "no live picture to choose a place on: start a run" : "";
    permit([$("region-pick")], still || live);
    permit([$("region-yes")], still);
    const place = this.places.at(-1);
    permit([$("region-back")], still || (place ? "" : "no place was left yet"));
    if (place && !still) $("region-back").title = `to ${micrometres(place)} µm${place.pixel ? `, ${length(place.pixel, 2)} a pixel` : ""}`;
    if ((still || live) && (this.picking || this.wanted)) this.end();
  }

  paint(context, { x, y, w, h }, ratio) {
    if (!this.drawn) return;
    const { drawn } = this;
    for (const [colour, thick] of [["rgb(0 0 0 / 0.6)", 3], ["#fff", 1.4]]) {
      context.strokeStyle = colour;
      context.lineWidth = thick * ratio;
      context.strokeRect(x + drawn.x * w, y + drawn.y * h, Math.max(2, drawn.w * w), Math.max(2, drawn.h * h));
    }
  }
}

const between = (a, b) => ({ x: Math.min(a.x, b.x), y: Math.min(a.y, b.y), w: Math.abs(a.x - b.x), h: Math.abs(a.y - b.y) });
const micrometres = ({ x_m: x, y_m: y }) => [x, y].map((metres) => (metres * 1e6).toFixed(2)).join(", ");
