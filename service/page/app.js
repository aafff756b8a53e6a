// The operator page: joins the lines to the service with the panes and the controls.

import { Alarms } from "./alarms.js";
import { Banner, Bar } from "./bar.js";
import { CalibrationCard } from "./calibration.js";
import { RunControls } from "./controls.js";
import { GasCard, StageCard } from "./devices.js";
import { $, el, typing } from "./dom.js";
import { Driver } from "./driver.js";
import { FacetsCard } from "./facets.js";
import { HeaterCard } from "./heater.js";
import { ModelsCard } from "./models.js";
import { cursorOverlay, sharedOverlays } from "./pane.js";
import { HeightPane, NormalsPane, SegmentPanes, TrustPane, probeText } from "./panes.js";
import { Planner } from "./plan.js";
import { Profile } from "./profile.js";
import { RecipeCard } from "./recipe.js";
import { Recordings } from "./recordings.js";
import { Region } from "./region.js";
import { Relief } from "./relief.js";
import { LiveSocket, get, openStatus, post } from "./socket.js";
import { Trends } from "./trends.js";
import { clockTime, duration } from "./units.js";

const HEARTBEAT_MS = 10_000;
const SILENT_AFTER_MS = 2500;
const SIDES_PX = [256, 512, 1024];
/** So much may an image be enlarged before more pixels are worth their way. */
const ENLARGED = 1.2;
const PROBED_LAYERS = ["segments", "height", "residual", "sigma"];
const REPLAYING = "replaying: leave the replay to drive devices";

/** What all parts of the page share: the newest message, the newest status, the cursor. */
const page = {
  live: null, liveAt: 0, status: null, field: null, cursor: null, frozen: false, lost: false, replaying: null,
  imagePanes: [], overlays: [],
  banner: new Banner(),
  probe: (cursor) => {
    page.cursor = cursor;
    for (const pane of page.imagePanes) pane.paintOver();
    relief.mark();
    profile.paintChart();
    tellProbe();
  },
  freeze: (on) => {
    page.frozen = on;
    live.freeze(on);
  },
  redraw: () => page.live && show(page.live),
  // A frozen page keeps the layers that it has; a live one asks for the new choice with its next wish.
  wantLayers: () => page.redraw(),
  showStatus: () => {
    if (!page.status) return;
    const looksOn = page.driver.reason, locked = page.replaying ? REPLAYING : looksOn;
    bar.show(page.status);
    for (const part of [alarms, run, recipe, models, calibration]) part.show(page.status, looksOn);
    for (const card of [heater, gas, stage, region]) card.show(page.status, locked);
    recordings.show(looksOn);
  },
};

const segments = new SegmentPanes(page);
const height = new HeightPane(page);
const normals = new NormalsPane(page);
const trust = new TrustPane(page);
const relief = new Relief(page);
const profile = new Profile(page, height), facets = new FacetsCard(page, height);
page.overlays.push(cursorOverlay(page));
for (const pane of page.imagePanes) pane.overlays.push(sharedOverlays(page));
const bar = new Bar(page), alarms = new Alarms(page), run = new RunControls(page);
const heater = new HeaterCard(), gas = new GasCard(), stage = new StageCard();
const recordings = new Recordings(page);
const trends = new Trends(page);
const planner = new Planner(), recipe = new RecipeCard(), models = new ModelsCard(page), calibration = new CalibrationCard(page);
page.replayPosition = () => (page.replaying ? recordings.position(page.replaying) : null);
page.driver = new Driver(page);
const region = new Region(page);

const live = new LiveSocket(wish, (message) => {
  page.live = joined(page.live, message);
  page.liveAt = performance.now();
  show(page.live, message.layers);
  if (message.layers.height) profile.follow(message.layers.height);
  facets.follow();
});

function wish() {
  const others = page.imagePanes.filter((pane) => !segments.panes.includes(pane));
  return {
    layers: wanted(), only_new: true, max_px: Math.max(512, enough(others)), segments_px: enough(segments.panes),
  };
}

const wanted = () => [...new Set([...PROBED_LAYERS, trust.layer])];

/** The pixels a side that the largest of `panes` can show. */
function enough(panes) {
  const shown = Math.max(0, ...panes.map((pane) => Math.min(pane.base.width, pane.base.height)));
  return SIDES_PX.find((side) => shown <= ENLARGED * side) ?? SIDES_PX.at(-1);
}

/** The service sends what is new: of the same run, what was there before stays. */
function joined(before, message) {
  if (before?.run_id !== message.run_id) return message;
  const stays = (name) => name in before.layers && (message.result || name === "segments");
  const kept = Object.fromEntries(wanted().filter(stays).map((name) => [name, before.layers[name]]));
  return { ...message, layers: { ...kept, ...message.layers } };
}

/** Draws the panes whose layers are `fresh`. */
function show(message, fresh = message.layers) {
  if (fresh.segments) segments.show(message);
  planner.show(message);
  page.field = message.layers.height ?? null;
  if (fresh.height) {
    height.show(page.field, message.result);
    normals.show(page.field);
    relief.show(page.field, height.range, height.table);
    trust.show(message);
  }
  tellProbe();
}

function tellProbe() {
  const parts = probeText(page);
  $("probe").replaceChildren(...(parts
    ? parts.flatMap(([name, text]) => [`${name} `, el("b", {}, text)])
    : ["move over an image to read its values"]));
}

// The status, and what happens when it no longer comes

let statusAt = performance.now(), lostAt = null, before = null;

openStatus(
  (status) => {
    statusAt = performance.now();
    page.status = status;
    page.replaying = ["acquiring", "finishing"].includes(status.state) ? status.run?.replayed ?? null : null;
    if (lostAt !== null) foundAgain(status);
    page.showStatus();
  },
  (event) => {
    alarms.addEvent(event);
    if (["transition", "run_complete"].includes(event.name)) setTimeout(() => recordings.refresh(), 300);
  },
  () => {},
  () => lose("the connection to the service is lost"),
);

setInterval(() => {
  if (performance.now() - statusAt > SILENT_AFTER_MS) lose("the acquisition program gives no sign of life");
}, 500);

async function lose(why) {
  if (lostAt === null) {
    lostAt = Date.now();
    before = page.status;
    page.lost = true;
  }
  page.banner.hold("lost", `${why} since ${clockTime(lostAt * 1e6)}; what is shown is old; trying again every second`);
  // After a new start of the service the old key opens nothing: then trying again would never help.
  const refused = await get("/ready").then(() => false, (error) => error.status === 401);
  if (refused) page.banner.hold("lost", "the service was started anew with another key: open the link that it printed");
}

async function foundAgain(status) {
  const away = (Date.now() - lostAt) / 1000, since = lostAt * 1e6;
  lostAt = null;
  page.lost = false;
  page.banner.clear("lost");
  const told = [`connected again after ${duration(away)} min`];
  const then = before?.run, now = status.run;
  if (then && now && then.run_id === now.run_id) told.push(`${now.frames - then.frames} frames were taken meanwhile`);
  else if (now?.run_id !== then?.run_id) told.push(`another run is under way: ${now?.run_id ?? "none"}`);
  try {
    const { events } = await get(`/trends?seconds=${Math.min(3600, Math.ceil(away) + 1)}`);
    const missed = events.filter((event) => event.utc_ns >= since);
    missed.forEach((event) => alarms.addEvent(event));
    told.push(`${missed.length} events missed${missed.length ? `, the last: ${missed.at(-1).text}` : ""}`);
    // A service that was down itself has not heard what happened; the microscope's program has counted it.
    const unheard = before ? eventsOf(status) - eventsOf(before) - missed.length : 0;
    if (unheard > 0) told.push(`and ${unheard} that nobody heard${now?.recording ? ": see the recording" : ""}`);
  } catch {
    told.push("events of that time are not known");
  }
  page.banner.tell(told.join("; "), "calm", 12_000);
  recordings.refresh();
}

const eventsOf = (status) => (status?.counters?.events ?? []).reduce((sum, { count }) => sum + count, 0);

// Somebody is watching: said only while the page can be seen

const beat = () => document.hidden || post("/operator:heartbeat").catch(() => {});
setInterval(beat, HEARTBEAT_MS);
document.addEventListener("visibilitychange", beat);
beat();

const KEYS = {
  " ": () => run.freeze(),
  r: () => run.toggleRecording(),
  p: () => profile.toggle(),
  ArrowLeft: () => recordings.step(-1),
  ArrowRight: () => recordings.step(1),
};

// A button that was clicked would keep the keyboard: space would press it again instead of freezing the view.
document.addEventListener("click", (event) => {
  if (event.detail > 0) event.target.closest("button")?.blur();
});

document.addEventListener("keydown", (event) => {
  const act = KEYS[event.key];
  if (!act || typing(event) || event.ctrlKey || event.metaKey || event.altKey || event.repeat && event.key.length === 1) return;
  event.preventDefault();
  act();
});
