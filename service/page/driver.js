// Who drives: this page, another, or nobody. A page that looks on names the driver; rest stays one press away for all.

import { $, attempt, setClass, setText } from "./dom.js";
import { call, get, post } from "./socket.js";
import { clockTime } from "./units.js";

const REFRESH_MS = 1000;
const NAME = "eclips-name";

export class Driver {
  constructor(page) {
    this.page = page;
    this.told = null;
    this.line = $("driver-line");
    $("driver-name").value = localStorage.getItem(NAME) ?? "";
    $("driver-button").onclick = () => (this.told?.yours ? this.letGo() : this.ask());
    $("driver-name").onkeydown = (event) => event.key === "Enter" && this.take();
    $("driver-yes").onclick = () => this.take();
    $("driver-no").onclick = () => $("driver").close();
    // A page that nobody sees falls silent, and with it its lease: the lab must not wait for it.
    setInterval(() => document.hidden || this.refresh(), REFRESH_MS);
    document.addEventListener("visibilitychange", () => document.hidden || this.refresh());
    this.refresh();
  }

  /** Why this page may only look on, or "" when it may drive. */
  get reason() {
    const { holder, yours } = this.told ?? {};
    return holder && !yours ? `driven by ${holder}: take control first` : "";
  }

  async refresh() {
    try {
      this.hear(await get("/control"));
    } catch {
      return; // the banner already says that the service does not answer
    }
  }

  ask() {
    const { holder, since_utc_ns: since } = this.told ?? {};
    setText($("driver-question"), holder
      ? `${holder} has driven since ${clockTime(since)}. Taking over leaves everything as it is and locks that page; it is told.`
      : "Nobody drives: everybody may. Taking control locks the other pages and programs.");
    setText($("driver-yes"), holder ? "Take over" : "Take control");
    setText(this.line, "");
    $("driver").showModal();
    $("driver-name").focus();
  }

  async take() {
    const name = $("driver-name").value.trim(), wanted = this.told?.holder ?? null;
    const taken = await attempt(this.line, async () => {
      if (!name) throw new Error("give your name: it is what the others see");
      this.hear(await post("/control", { name, take_over: wanted !== null }), "");
    });
    if (!taken) return;
    localStorage.setItem(NAME, name);
    $("driver").close();
  }

  async letGo() {
    const line = document.createElement("span");
    if (!await attempt(line, async () => this.hear(await call("DELETE", "/control"), ""))) this.page.banner.tell(line.textContent, "wrong");
  }

  /** What the service says of control; a page that lost it without having let go is told. */
  hear(told, lost = told.holder ? `${told.holder} took control` : "nobody drives any more: control ends after 30 s without a sign of life") {
    if (this.told?.yours && !told.yours && lost) this.page.banner.tell(lost, "warn", 15_000);
    this.told = told;
    setText($("driver-now"), told.yours ? "you drive" : told.holder ? `driven by ${told.holder}` : "nobody drives");
    $("driver-now").title = told.holder ? `since ${clockTime(told.since_utc_ns)}` : "everybody may drive until somebody takes control";
    setText($("driver-button"), told.yours ? "Let go" : "Take control");
    setClass($("driver-now"), "strong-text", told.holder);
    this.page.showStatus();
  }
}
