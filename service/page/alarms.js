// Alarms stand until acknowledged and cleared; each says its way out. Below them, what happened lately.

import { $, attempt, el, setClass, setText } from "./dom.js";
import { post } from "./socket.js";
import { clockTime } from "./units.js";

const REMEMBERED_EVENTS = 60;

export class Alarms {
  constructor(page) {
    this.page = page;
    this.shown = "";
    $("alarms-open").onclick = () => $("alarms").showModal();
    $("alarms-close").onclick = () => $("alarms").close();
  }

  show(status, looksOn) {
    const alarms = status.alarms, open = $("alarms-open");
    const unseen = alarms.filter((alarm) => !alarm.acknowledged);
    setText(open, `ALARMS (${alarms.length})`);
    setClass(open, "on", unseen.length > 0);
    setClass(open, "seen", alarms.length > 0 && !unseen.length);
    if (unseen.length) this.page.banner.hold("alarm", `${unseen[0].text} — ${unseen[0].way_out}`);
    else this.page.banner.clear("alarm");
    if (status.fault) this.page.banner.hold("fault", `run fault: ${status.fault} — mend the cause, then reset`);
    else this.page.banner.clear("fault");
    const now = JSON.stringify([alarms, looksOn]);
    if (now === this.shown) return;
    this.shown = now;
    const none = el("p", { class: "note" }, "no alarm stands");
    $("alarm-list").replaceChildren(...(alarms.length ? alarms.map((alarm) => this.entry(alarm, looksOn)) : [none]));
  }

  entry(alarm, looksOn) {
    const state = alarm.active ? "the cause lasts" : "the cause is gone";
    const seen = alarm.acknowledged ? "acknowledged" : "not acknowledged";
    const acknowledge = () => attempt($("alarms-line"), () => post(`/alarms/${encodeURIComponent(alarm.id)}:acknowledge`));
    return el("li", { class: alarm.active ? "" : "over" },
      el("b", {}, alarm.text),
      el("span", {}, `What to do: ${alarm.way_out}`),
      el("span", { class: "note" }, `${clockTime(alarm.raised_utc_ns)} · ${state} · ${seen}`),
      alarm.acknowledged ? null : el("button", { onclick: acknowledge, disabled: Boolean(looksOn), title: looksOn, "aria-label": `Acknowledge ${alarm.id}` }, "Acknowledge"));
  }

  addEvent(event) {
    const list = $("event-list");
    list.prepend(el("li", { class: event.severity },
      el("span", { class: "note" }, clockTime(event.utc_ns)), el("span", {}, event.name), el("span", {}, event.text)));
    while (list.children.length > REMEMBERED_EVENTS) list.lastChild.remove();
  }
}
