// The lines to the service: REST calls, the status socket, and the live socket with its credits.

const RETRY_MS = 1000;

/** By this text the service knows the tab again, also after a reload. A tab that was made as a copy takes one of its own. */
const session = {
  text: sessionStorage.getItem("eclips-session") ?? randomText(),
  keep(text) {
    this.text = text;
    sessionStorage.setItem("eclips-session", text);
  },
};
session.keep(session.text);
const tabs = new BroadcastChannel("eclips-session");
tabs.onmessage = ({ data: { asks, taken } }) => {
  if (asks === session.text) tabs.postMessage({ taken: asks });
  if (taken === session.text && !session.settled) session.keep(randomText());
};
tabs.postMessage({ asks: session.text });
setTimeout(() => (session.settled = true), RETRY_MS);

function randomText() {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (word) => word.toString(36)).join("");
}

/** A call of `/api/v1`. Throws an Error whose message is the service's own `detail`. */
export async function call(method, path, body) {
  let response;
  try {
    response = await fetch(`/api/v1${path}`, {
      method,
      headers: { "Eclips-Session": session.text, ...(body === undefined ? {} : { "Content-Type": "application/json" }) },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new Error("the service does not answer; nothing is known to have been done");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw Object.assign(new Error(answer.detail ?? `${response.status} ${response.statusText}`), {
      status: response.status,
      problem: answer,
    });
  }
  return answer;
}

export const get = (path) => call("GET", path);
export const post = (path, body) => call("POST", path, body);

/** A WebSocket that comes back by itself. `onMessage` gets each message, `onOpen` and `onLost` the changes. */
class Line {
  constructor(path, { onMessage, onOpen = () => {}, onLost = () => {} }) {
    this.path = path;
    this.handlers = { onMessage, onOpen, onLost };
    this.open();
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.socket = new WebSocket(`${scheme}://${location.host}/api/v1${this.path}`);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => this.handlers.onOpen();
    this.socket.onmessage = (event) => this.handlers.onMessage(event.data);
    this.socket.onclose = () => {
      this.handlers.onLost();
      setTimeout(() => this.open(), RETRY_MS);
    };
  }

  send(text) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(text);
  }
}

export function openStatus(onStatus, onEvent, onOpen, onLost) {
  return new Line("/status", {
    onMessage: (text) => {
      const message = JSON.parse(text);
      if (message.kind === "event") onEvent(message);
      else onStatus(message);
    },
    onOpen,
    onLost,
  });
}

/**
 * Pictures by credit: the next is asked for when the last is drawn, so nothing ever queues and the newest wins.
 * `wish()` says what the page shows; `onFrame(message)` draws and may return a promise.
 */
export class LiveSocket {
  constructor(wish, onFrame) {
    this.wish = wish;
    this.onFrame = onFrame;
    this.frozen = false;
    this.waiting = false;
    this.line = new Line("/live", {
      onMessage: (buffer) => this.take(buffer),
      onOpen: () => this.restart(),
      onLost: () => (this.waiting = false),
    });
  }

  freeze(on) {
    this.frozen = on;
    if (!on) this.ask();
  }

  restart() {
    this.waiting = false;
    this.ask();
  }

  ask() {
    if (this.frozen || this.waiting) return;
    this.waiting = true;
    this.line.send(JSON.stringify(this.wish()));
  }

  take(buffer) {
    this.waiting = false;
    // A frame that was on its way when the operator froze the page must not replace what is looked at.
    if (this.frozen) return;
    const message = decode(buffer);
    requestAnimationFrame(() => {
      if (!this.frozen) this.onFrame(message);
      this.ask();
    });
  }
}

const ARRAYS = { uint16: Uint16Array, float32: Float32Array, float16: Uint16Array };

/** `uint32 header length | JSON header | arrays`: the arrays become views into the message, nothing is copied. */
export function decode(buffer) {
  const headerLength = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, headerLength)));
  const start = 4 + headerLength;
  const layers = {};
  for (const { name, dtype, shape, offset, pixel_size_m } of header.layers) {
    const count = shape.reduce((product, side) => product * side, 1);
    const words = new ARRAYS[dtype](buffer, start + offset, count);
    const [height, width] = shape.slice(-2), size = { width, height, pixelSize: pixel_size_m };
    layers[name] = dtype === "float16" ? new Halves(words, size) : { ...size, data: words };
  }
  return { ...header, layers };
}

/** A layer sent in half precision: made into floats when somebody looks at it. */
class Halves {
  constructor(words, size) {
    Object.assign(this, size, { words });
  }

  get data() {
    if (!this.floats) {
      this.floats = new Float32Array(this.words.length);
      for (let i = 0; i < this.floats.length; i++) this.floats[i] = HALVES[this.words[i]];
    }
    return this.floats;
  }
}

/** What each of the 65536 halves means (IEEE 754 binary16). */
const HALVES = Float32Array.from({ length: 65536 }, (_, word) => {
  const sign = word >> 15 ? -1 : 1, exponent = (word >> 10) & 31, fraction = (word & 1023) / 1024;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction) : 2 ** -14 * fraction);
});
