// The picture of the viewer: photograph, layers, zoom, wipe, side by side, probability under the cursor, ruler.
//
// Everything here acts on planes that lie in the browser; Python is asked only for tiles that are missing (trigger
// "want") and told the thresholds when a slider is let go (state "thresholds"). Numbers that must be exact come from
// Python. Planes: "colour", "green", "contrast" are pictures; all others are arrays, probabilities as 0 to FULL.

const FULL = 65000; // probability 1 in a tile; thresholds of three decimals are whole numbers
const GAP = 4; // between two pictures side by side, CSS px
const MAX_ZOOM = 32; // screen pixels per pixel of the photograph
const PIXELS_FROM = 3; // from this zoom on single pixels are shown, not interpolated
const ASK_AGAIN = 6000; // ms after which a tile that never came is asked for again
const KEPT = 160; // tiles in memory beside those in view: about 100 MB at the most
const SETTINGS = "retina_seg.viewer"; // in sessionStorage: how the user likes to see, nothing of the photograph
const VIEWS = { colour: "Colour", green: "Green channel", contrast: "Contrast-enhanced" };
const LAYOUTS = { one: "One picture", wipe: "Wipe", side: "Side by side" };

const viewers = new WeakMap();

export default function ({ parentElement, data, setStateValue, setTriggerValue }) {
  let viewer = viewers.get(parentElement);
  if (!viewer) {
    viewer = new Viewer(parentElement.querySelector(".viewer"));
    viewers.set(parentElement, viewer);
  }
  viewer.tell = setStateValue;
  viewer.ask = setTriggerValue;
  if (data) viewer.receive(data);
  return () => {
    viewer.close();
    viewers.delete(parentElement);
  };
}

// --- what Python sends: 4 bytes length of the header (little endian), header (JSON), blobs

function unpack(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = view.getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  return { header, blobs: bytes.subarray(4 + length) };
}

async function decode(tile, blob) {
  if (tile.type.startsWith("image/")) return createImageBitmap(new Blob([blob], { type: tile.type }));
  const stream = new Blob([blob]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  return tile.type === "u16" ? new Uint16Array(buffer) : new Uint8Array(buffer);
}

// --- small DOM pieces

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function swatch(colour) {
  const made = element("span", { className: "swatch" });
  made.style.background = `rgb(${colour.join(",")})`;
  return made;
}

function menu(label, entries, value, onchange) {
  const options = Object.entries(entries).map(([key, text]) => element("option", { value: key, textContent: text }));
  const select = element("select", { ariaLabel: label }, ...options);
  select.value = value;
  select.onchange = () => onchange(select.value);
  return element("label", {}, label, select);
}

function button(text, title, onclick) {
  return element("button", { type: "button", textContent: text, title, ariaLabel: title, onclick });
}

function slider(label, [low, high, step], value, oninput, className = "") {
  const input = element("input", { type: "range", min: low, max: high, step, ariaLabel: label, title: label, className });
  input.value = value;
  input.oninput = () => oninput(Number(input.value));
  return input;
}

// --- the viewer

class Viewer {
  constructor(root) {
    this.root = root;
    this.stage = root.querySelector(".stage");
    this.canvas = root.querySelector("canvas");
    this.waiting = root.querySelector(".wait");
    this.scene = null;
    this.tiles = new Map(); // key -> bitmap or array; the order is that of use
    this.painted = new Map(); // content and tile -> canvas with the colours of the layers
    this.asked = new Map(); // key -> time
    this.settings = { view: "colour", layout: "one", first: "", second: "", wipe: 0.5, layers: {}, ...stored() };
    this.thresholds = {};
    this.ruler = { on: false, points: [] };
    this.listen();
    this.sized = new ResizeObserver(() => this.resized());
    this.sized.observe(this.stage);
  }

  close() {
    this.sized.disconnect();
    clearTimeout(this.timer);
    clearTimeout(this.again);
    this.closed = true;
  }

  // --- data

  async receive(bytes) {
    const { header, blobs } = unpack(bytes);
    if (header.scene) this.enter(header.scene);
    if (!this.scene || header.id !== this.scene.id) return this.request([]);
    const wanted = header.tiles.filter((tile) => !this.tiles.has(tile.key));
    await Promise.all(
      wanted.map(async (tile) => {
        const content = await decode(tile, blobs.slice(tile.start, tile.start + tile.length));
        if (this.scene.id === header.id) this.tiles.set(tile.key, content);
      }),
    );
    if (this.scene.id !== header.id) return; // another photograph came meanwhile
    (header.asked ?? []).forEach((key) => this.asked.delete(key)); // what did not fit is asked for again
    if (!this.zoom) this.fit();
    this.draw();
  }

  // A new photograph, or the same one with other layers.
  enter(scene) {
    const before = this.scene;
    this.scene = scene;
    if (before?.id === scene.id) return; // the controls stay, and with them the focus of the keyboard
    this.tiles.clear();
    this.asked.clear();
    this.thresholds = {};
    if (before?.photograph !== scene.photograph) {
      this.ruler.points = [];
      this.zoom = 0; // fitted once it can be drawn
    }
    this.painted.clear();
    this.say(null);
    for (const layer of scene.layers) {
      if (layer.kind === "prob") this.thresholds[layer.id] ??= scene.thresholds[layer.id] ?? layer.threshold;
      this.settings.layers[layer.id] ??= { on: layer.on, opacity: layer.opacity, contour: layer.contour };
    }
    this.contents = contents(scene);
    const names = Object.keys(this.contents);
    if (!names.includes(this.settings.first)) this.settings.first = "result:a";
    if (!names.includes(this.settings.second)) this.settings.second = "photograph";
    this.build();
  }

  // Ask Python for tiles; an empty list asks for the scene itself. Streamlit may drop a question that another one
  // follows at once: each question names all that is still open, and what does not come is asked for again.
  request(keys) {
    const now = Date.now();
    const fresh = keys.filter((key) => !(now - (this.asked.get(key) ?? 0) < ASK_AGAIN));
    clearTimeout(this.again);
    this.again = setTimeout(() => this.draw(), ASK_AGAIN + 100);
    if (!fresh.length && keys.length) return;
    fresh.forEach((key) => this.asked.set(key, now));
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      const open = [...this.asked].filter(([, time]) => Date.now() - time < ASK_AGAIN).map(([key]) => key);
      this.ask("want", { id: this.scene ? this.scene.id : "", tiles: open });
    }, 60);
  }

  // --- controls

  build() {
    const { settings, scene } = this;
    const change = (name) => (value) => {
      settings[name] = value;
      this.changed();
    };
    const names = Object.fromEntries(Object.entries(this.contents).map(([key, { title }]) => [key, title]));
    const bar = this.root.querySelector(".bar");
    this.secondMenu = menu("and", names, settings.second, change("second"));
    this.wipeSlider = slider("Position of the wipe", [0, 1, 0.005], settings.wipe, (value) => {
      settings.wipe = value;
      this.draw();
    });
    const ruler = button("Ruler", "Ruler: measure a distance, click its two ends", () => {
      this.ruler = { on: !this.ruler.on, points: [] };
      ruler.ariaPressed = String(this.ruler.on);
      this.stage.classList.toggle("ruler", this.ruler.on);
      this.draw();
    });
    ruler.ariaPressed = String(this.ruler.on);
    bar.replaceChildren(
      menu("View", VIEWS, settings.view, change("view")),
      menu("Layout", LAYOUTS, settings.layout, (value) => {
        change("layout")(value);
        this.fit(); // the panes have another size now
      }),
      menu("Show", names, settings.first, change("first")),
      this.secondMenu,
      this.wipeSlider,
      button("−", "Zoom out", () => this.zoomBy(1 / 1.5)),
      button("+", "Zoom in", () => this.zoomBy(1.5)),
      button("Fit", "Show all of the photograph", () => this.fit()),
      button("1:1", "One screen pixel for each pixel of the photograph", () => this.actual()),
      ruler,
      button("Full screen", "Full screen: Esc leaves it", () => this.root.requestFullscreen()),
    );
    const wrong = Object.keys(names).find((name) => name.startsWith("agreement:a"));
    if (wrong) {
      const compare = button("Where is it wrong?", "Where is it wrong? Result and agreement side by side", () => {
        Object.assign(settings, { layout: "side", first: "result:a", second: wrong });
        this.build();
        this.changed();
        this.fit();
      });
      bar.append(compare);
    }
    this.legend = element("div", { className: "legend", role: "note" });
    const rows = scene.layers.filter((layer) => layer.kind !== "truth" || scene.layers.length < 6);
    const list = this.root.querySelector(".layers");
    list.classList.toggle("many", rows.filter((layer) => layer.kind === "prob").length > 1); // a line for each
    list.replaceChildren(...rows.map((layer) => this.row(layer)), this.legend);
    this.arrange();
  }

  row(layer) {
    const own = this.settings.layers[layer.id];
    const set = (name) => (value) => {
      own[name] = value;
      this.changed();
    };
    const box = (label, name) => {
      const input = element("input", { type: "checkbox", checked: own[name], ariaLabel: `${layer.title}: ${label}` });
      input.onchange = () => set(name)(input.checked);
      return input;
    };
    const shown = element("label", { className: "name" }, box("shown", "on"), swatch(layer.colour), layer.title);
    const row = element("div", { className: "layer" }, shown);
    if (layer.kind !== "mask") {
      const [threshold, live] = layer.kind === "prob" ? this.thresholdOf(layer) : [[], []];
      const opacity = slider(`${layer.title}: opacity`, [0.1, 1, 0.05], own.opacity, set("opacity"));
      const contour = element("label", { className: "style" }, box("contour only", "contour"), "contour");
      row.append(...threshold, element("label", { className: "style" }, "opacity", opacity), contour, ...live);
    }
    row.dataset.layer = layer.id;
    return row;
  }

  thresholdOf(layer) {
    const number = element("output", { textContent: this.thresholds[layer.id].toFixed(3) });
    const live = element("span", { className: "live" });
    const update = (value) => {
      this.thresholds[layer.id] = value;
      number.textContent = value.toFixed(3);
      live.textContent = describe(layer, value);
      this.painted.clear();
      this.draw();
    };
    const input = slider(`${layer.title}: threshold`, [0.005, 0.995, 0.001], this.thresholds[layer.id], update, "threshold");
    const report = () => this.tell("thresholds", { scene: this.scene.id, values: { ...this.thresholds } });
    input.onchange = report;
    const reset = button("↺", `Back to the model's own threshold, ${layer.threshold.toFixed(3)}`, () => {
      input.value = layer.threshold;
      update(layer.threshold);
      report();
    });
    live.textContent = describe(layer, this.thresholds[layer.id]);
    return [[element("label", {}, "threshold", input, number), reset], [live]];
  }

  changed() {
    store(this.settings);
    this.painted.clear();
    this.arrange();
    this.draw();
  }

  // Show the controls and the legend that belong to what is shown.
  arrange() {
    const { layout } = this.settings;
    this.secondMenu.hidden = layout === "one";
    this.wipeSlider.hidden = layout !== "wipe";
    const shown = this.shown().map((name) => this.contents[name]);
    const used = new Set(shown.flatMap((content) => content.layers));
    const styled = new Set(shown.filter((content) => content.styled).flatMap((content) => content.layers));
    for (const row of this.root.querySelectorAll(".layer")) {
      row.hidden = !used.has(row.dataset.layer);
      // Agreement and probability have colours of their own.
      for (const part of row.querySelectorAll(".style")) part.hidden = !styled.has(row.dataset.layer);
      row.querySelector("input").disabled = !styled.has(row.dataset.layer);
    }
    const legend = new Map(shown.flatMap((content) => content.legend));
    this.legend.replaceChildren(
      ...[...legend].map(([text, colour]) => element("span", {}, swatch(colour), text)),
    );
    this.legend.hidden = !legend.size;
  }

  // Names of the contents in view: one, or two.
  shown() {
    const { layout, first, second } = this.settings;
    return layout === "one" ? [first] : [first, second];
  }

  // --- geometry: a point of the photograph (x, y) in px lies at (x * zoom + left, y * zoom + top) in CSS px of a pane

  panes() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    const [first, second] = this.shown();
    if (this.settings.layout === "side") {
      const half = (width - GAP) / 2;
      return [
        { name: first, x: 0, width: half, clip: [0, half] },
        { name: second, x: half + GAP, width: half, clip: [half + GAP, half] },
      ].map((pane) => ({ ...pane, height }));
    }
    const whole = { x: 0, width, height };
    if (this.settings.layout === "one") return [{ ...whole, name: first, clip: [0, width] }];
    const cut = this.settings.wipe * width;
    return [
      { ...whole, name: first, clip: [0, cut] },
      { ...whole, name: second, clip: [cut, width - cut] },
    ];
  }

  whole() {
    const pane = this.panes()[0];
    return Math.min(pane.width / this.scene.width, pane.height / this.scene.height);
  }

  fit() {
    this.zoom = this.whole();
    this.left = this.top = 0;
    this.pan(0, 0);
  }

  // The stage has another size: what was shown whole still is, and what was in the middle stays there.
  resized() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    const before = this.size ?? [width, height];
    const fitted = this.fitted;
    this.size = [width, height];
    if (!this.scene || !width || !height) return;
    if (!this.zoom || fitted) this.fit();
    else this.pan((width - before[0]) / 2, (height - before[1]) / 2);
  }

  actual() {
    this.zoomBy(1 / devicePixelRatio / this.zoom);
  }

  zoomBy(factor, at) {
    const pane = this.panes()[0];
    const [x, y] = at ?? [pane.width / 2, pane.height / 2];
    const least = Math.min(this.whole() / 2, 1 / devicePixelRatio);
    const zoom = Math.min(Math.max(this.zoom * factor, least), MAX_ZOOM);
    this.left = x - ((x - this.left) * zoom) / this.zoom;
    this.top = y - ((y - this.top) * zoom) / this.zoom;
    this.zoom = zoom;
    this.pan(0, 0);
  }

  // Along each axis the photograph covers the pane, or lies whole inside it, in the middle.
  pan(dx, dy) {
    const pane = this.panes()[0];
    const { width, height } = this.scene;
    const within = (value, size, room) =>
      size <= room ? (room - size) / 2 : Math.min(Math.max(value, room - size), 0);
    this.left = within(this.left + dx, width * this.zoom, pane.width);
    this.top = within(this.top + dy, height * this.zoom, pane.height);
    if (this.sharp()) {
      this.left = Math.round(this.left * devicePixelRatio) / devicePixelRatio;
      this.top = Math.round(this.top * devicePixelRatio) / devicePixelRatio;
    }
    this.fitted = Math.abs(this.zoom / this.whole() - 1) < 1e-6;
    this.draw();
  }

  // Whether a pixel of the photograph takes a whole number of screen pixels: it is shown as it is then.
  sharp() {
    const density = this.zoom * devicePixelRatio;
    return density > 0.99 && Math.abs(density - Math.round(density)) < 1e-6;
  }

  // The point of the photograph under a pointer event, and the pane it is in.
  locate(event) {
    const frame = this.stage.getBoundingClientRect();
    const x = event.clientX - frame.left;
    const y = event.clientY - frame.top;
    const panes = this.panes();
    const pane = panes.find(({ clip: [start, size] }) => x >= start && x < start + size) ?? panes[0];
    return { pane, at: [x - pane.x, y], point: [(x - pane.x - this.left) / this.zoom, (y - this.top) / this.zoom] };
  }

  // --- hands

  listen() {
    const { stage } = this;
    stage.addEventListener(
      "wheel",
      (event) => {
        if (!this.scene) return;
        event.preventDefault();
        const lines = event.deltaMode === 1 ? 30 : 1;
        this.zoomBy(Math.exp(-event.deltaY * lines * 0.0015), this.locate(event).at);
      },
      { passive: false },
    );
    stage.addEventListener("pointerdown", (event) => this.press(event));
    stage.addEventListener("pointermove", (event) => this.move(event));
    stage.addEventListener("pointerup", () => (this.drag = null));
    stage.addEventListener("pointercancel", () => (this.drag = null));
    stage.addEventListener("pointerleave", () => this.say(null));
    stage.addEventListener("dblclick", () => this.scene && !this.ruler.on && this.fit());
    stage.addEventListener("keydown", (event) => this.key(event));
  }

  press(event) {
    if (!this.scene || event.button !== 0) return;
    stageFocus(this.stage);
    this.stage.setPointerCapture(event.pointerId);
    const frame = this.stage.getBoundingClientRect();
    const x = event.clientX - frame.left;
    const onWipe = this.settings.layout === "wipe" && Math.abs(x - this.settings.wipe * frame.width) < 12;
    if (onWipe) this.drag = { wipe: true };
    else if (this.ruler.on) this.measure(this.locate(event).point);
    else this.drag = { x: event.clientX, y: event.clientY };
  }

  move(event) {
    if (!this.scene) return;
    const { drag } = this;
    if (this.byKeys) this.draw();
    this.byKeys = false;
    if (drag && drag.wipe) {
      const frame = this.stage.getBoundingClientRect();
      this.settings.wipe = Math.min(Math.max((event.clientX - frame.left) / frame.width, 0), 1);
      this.wipeSlider.value = this.settings.wipe;
      this.draw();
    } else if (drag) {
      this.pan(event.clientX - drag.x, event.clientY - drag.y);
      this.drag = { x: event.clientX, y: event.clientY };
    }
    const { pane, point } = this.locate(event);
    if (this.ruler.on && this.ruler.points.length === 1) {
      this.ruler.aim = point;
      this.draw();
    }
    this.say(point, pane.name);
  }

  key(event) {
    if (!this.scene || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = event.shiftKey ? 200 : 50;
    const centre = () => {
      const pane = this.panes()[0];
      return [(pane.width / 2 - this.left) / this.zoom, (pane.height / 2 - this.top) / this.zoom];
    };
    const keys = {
      ArrowLeft: () => this.pan(step, 0),
      ArrowRight: () => this.pan(-step, 0),
      ArrowUp: () => this.pan(0, step),
      ArrowDown: () => this.pan(0, -step),
      "+": () => this.zoomBy(1.25),
      "=": () => this.zoomBy(1.25),
      "-": () => this.zoomBy(0.8),
      0: () => this.fit(),
      r: () => this.measure(centre()),
      R: () => this.measure(centre()),
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    event.stopPropagation(); // Streamlit has shortcuts of its own
    keys[event.key]();
    this.byKeys = true; // a mark in the middle shows where the keys point
    this.say(centre(), this.panes()[0].name);
    this.draw();
  }

  measure(point) {
    const { points } = this.ruler;
    this.ruler.points = points.length === 1 ? [points[0], point] : [point];
    this.ruler.aim = null;
    this.draw();
  }

  // --- words under the picture

  say(point, name) {
    const where = this.root.querySelector(".where");
    const { width, height } = this.scene ?? { width: 0, height: 0 };
    if (!point || point[0] < 0 || point[1] < 0 || point[0] >= width || point[1] >= height) {
      where.textContent = "";
      return;
    }
    const [x, y] = point.map(Math.floor);
    const layers = this.scene.layers.filter(
      (layer) => layer.kind === "prob" && (this.contents[name]?.layers.includes(layer.id) || layer.source === "a"),
    );
    const texts = layers.map((layer) => {
      const value = this.valueAt(layer.plane, x, y);
      return value === null ? `${layer.title} …` : `${layer.title} ${value.toFixed(3)}`;
    });
    where.textContent = `x ${x}, y ${y} · probability: ${texts.join(", ")}`;
  }

  // Probability at a pixel of the photograph, null where the full resolution is not here yet (and is then asked for).
  valueAt(plane, x, y) {
    const { tile, width } = this.scene;
    const [column, line] = [Math.floor(x / tile), Math.floor(y / tile)];
    const key = `${plane}/0/${column}/${line}`;
    const values = this.tiles.get(key);
    if (!values) {
      this.request([key]);
      return null;
    }
    const across = Math.min(tile, width - column * tile);
    return values[(y - line * tile) * across + (x - column * tile)] / FULL;
  }

  // --- drawing

  draw() {
    if (this.frame || this.closed) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      if (this.scene && this.zoom) this.paint();
    });
  }

  paint() {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = this.stage;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
    }
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.imageSmoothingEnabled = this.zoom < PIXELS_FROM && !this.sharp();
    context.imageSmoothingQuality = "high";
    const level = this.levelFor(this.zoom * ratio);
    const missing = new Set();
    const used = new Set();
    for (const pane of this.panes()) {
      context.save();
      context.beginPath();
      context.rect(pane.clip[0], 0, pane.clip[1], height);
      context.clip();
      this.paintPane(context, pane, level, missing, used);
      context.restore();
    }
    this.paintOver(context, width, height);
    this.waiting.hidden = !missing.size;
    this.forget(used);
    if (missing.size) this.request([...missing]);
  }

  levelFor(density) {
    let level = this.scene.levels.length - 1;
    while (level > 0 && this.scene.width / this.scene.levels[level][0] > 1.05 / density) level--;
    return level;
  }

  paintPane(context, pane, level, missing, used) {
    const { tile, width, levels } = this.scene;
    const content = this.contents[pane.name];
    const [across, down] = levels[level];
    const [wide, high] = [width / across, this.scene.height / down]; // pixels of the photograph in one of the level
    const at = (edge, unit) => Math.floor(edge / this.zoom / unit / tile);
    const [from, to] = [pane.clip[0] - pane.x - this.left, pane.clip[0] + pane.clip[1] - pane.x - this.left];
    const lastLine = Math.min(Math.ceil(down / tile) - 1, at(pane.height - this.top, high));
    const lastColumn = Math.min(Math.ceil(across / tile) - 1, at(to, wide));
    for (let line = Math.max(0, at(-this.top, high)); line <= lastLine; line++) {
      for (let column = Math.max(0, at(from, wide)); column <= lastColumn; column++) {
        const place = [level, column, line];
        this.paintPart(context, pane, this.settings.view, place, missing, used, (key) => this.tiles.get(key));
        if (content.planes.length)
          this.paintPart(context, pane, content.planes, place, missing, used, (...keys) => this.layered(content, keys));
      }
    }
  }

  // One tile of a picture or of the layers of a content; until it is here, the same part of a coarser one.
  paintPart(context, pane, planes, [level, column, line], missing, used, make) {
    const { tile, levels, width, height } = this.scene;
    const list = [planes].flat();
    const part = [column * tile, line * tile, Math.min(tile, levels[level][0] - column * tile), Math.min(tile, levels[level][1] - line * tile)];
    const unit = [width / levels[level][0], height / levels[level][1]];
    const target = [
      part[0] * unit[0] * this.zoom + this.left + pane.x,
      part[1] * unit[1] * this.zoom + this.top,
      part[2] * unit[0] * this.zoom,
      part[3] * unit[1] * this.zoom,
    ];
    const keysAt = (l, c, r) => list.map((plane) => `${plane}/${l}/${c}/${r}`);
    for (const key of keysAt(level, column, line)) if (!this.tiles.has(key)) missing.add(key);
    for (let l = level; l < levels.length; l++) {
      const shrink = [levels[l][0] / levels[level][0], levels[l][1] / levels[level][1]];
      const start = [part[0] * shrink[0], part[1] * shrink[1]];
      const [c, r] = start.map((value) => Math.floor(value / tile + 1e-9));
      const keys = keysAt(l, c, r);
      if (!keys.every((key) => this.tiles.has(key))) continue;
      keys.forEach((key) => used.add(key));
      const source = make(...keys);
      const [x, y] = [start[0] - c * tile, start[1] - r * tile];
      const size = [Math.min(part[2] * shrink[0], source.width - x), Math.min(part[3] * shrink[1], source.height - y)];
      if (size[0] > 0 && size[1] > 0) context.drawImage(source, x, y, ...size, ...target);
      return;
    }
  }

  // The layers of a content over one tile, as a canvas with transparency.
  layered(content, keys) {
    const name = `${content.name} ${keys[0]}`;
    if (this.painted.has(name)) return this.painted.get(name);
    const [, level, column, line] = keys[0].match(/\/(\d+)\/(\d+)\/(\d+)$/).map(Number);
    const { tile, levels } = this.scene;
    const width = Math.min(tile, levels[level][0] - column * tile);
    const height = Math.min(tile, levels[level][1] - line * tile);
    const planes = Object.fromEntries(content.planes.map((plane, index) => [plane, this.tiles.get(keys[index])]));
    const image = new ImageData(width, height);
    content.paint(image, planes, this);
    const canvas = element("canvas", { width, height });
    canvas.getContext("2d").putImageData(image, 0, 0);
    this.painted.set(name, canvas);
    return canvas;
  }

  paintOver(context, width, height) {
    const { layout, wipe } = this.settings;
    context.font = "12px sans-serif";
    context.textBaseline = "top";
    for (const [index, pane] of (layout === "one" ? [] : this.panes()).entries()) {
      const title = this.contents[pane.name].title;
      const space = context.measureText(title).width + 12;
      const x = layout === "wipe" && index ? width - space - 6 : pane.clip[0] + 6;
      context.fillStyle = "rgba(0,0,0,.65)";
      context.fillRect(x, 6, space, 19);
      context.fillStyle = "#fff";
      context.fillText(title, x + 6, 10);
    }
    if (layout === "wipe") {
      context.fillStyle = "#fff";
      context.fillRect(wipe * width - 1, 0, 2, height);
      context.beginPath();
      context.arc(wipe * width, height / 2, 9, 0, 2 * Math.PI);
      context.fill();
      context.fillStyle = "#000";
      context.textAlign = "center";
      context.fillText("⇔", wipe * width, height / 2 - 6);
      context.textAlign = "start";
    }
    this.paintRuler(context);
    if (this.byKeys) {
      const pane = this.panes()[0];
      context.strokeStyle = "#fff";
      context.strokeRect(pane.width / 2 - 4, height / 2 - 4, 8, 8);
    }
  }

  paintRuler(context) {
    const [start, given] = this.ruler.points;
    const end = given ?? this.ruler.aim;
    const label = this.root.querySelector(".length");
    if (!start) {
      label.textContent = this.ruler.on ? "ruler: click the first end" : "";
      return;
    }
    const pixels = end ? Math.hypot(end[0] - start[0], end[1] - start[1]) : 0;
    const { um_per_px: size } = this.scene;
    const real = size ? ` = ${(pixels * size).toFixed(0)} µm` : "";
    label.textContent = end ? `distance ${pixels.toFixed(1)} px${real}` : "ruler: click the second end";
    for (const pane of this.panes()) {
      context.save();
      context.beginPath();
      context.rect(pane.clip[0], 0, pane.clip[1], pane.height);
      context.clip();
      const at = ([x, y]) => [x * this.zoom + this.left + pane.x, y * this.zoom + this.top];
      for (const [colour, thickness] of [["#000", 4], ["#fff", 2]]) {
        context.strokeStyle = colour;
        context.lineWidth = thickness;
        context.beginPath();
        context.moveTo(...at(start));
        if (end) context.lineTo(...at(end));
        for (const point of end ? [start, end] : [start]) {
          const [x, y] = at(point);
          context.moveTo(x - 5, y);
          context.lineTo(x + 5, y);
          context.moveTo(x, y - 5);
          context.lineTo(x, y + 5);
        }
        context.stroke();
      }
      context.restore();
    }
  }

  // Tiles in view are the last to go.
  forget(used) {
    for (const key of used) {
      const tile = this.tiles.get(key);
      this.tiles.delete(key);
      this.tiles.set(key, tile);
    }
    for (const key of this.tiles.keys()) {
      if (this.tiles.size <= KEPT + used.size) break;
      this.tiles.delete(key);
    }
    if (this.painted.size > KEPT) this.painted.clear();
  }
}

function stageFocus(stage) {
  stage.focus({ preventScroll: true });
}

// --- what can be shown: name -> title, layers with controls, planes, legend, and how the layers become colours

function contents(scene) {
  const found = {
    photograph: { title: "Photograph", layers: [], planes: [], legend: [], paint: () => {} },
  };
  const several = scene.sources.length > 1;
  for (const { id, title } of scene.sources) {
    const of = several ? ` · ${title}` : "";
    const layers = scene.layers.filter((layer) => layer.source === id);
    const probabilities = layers.filter((layer) => layer.kind === "prob");
    found[`result:${id}`] = layered(`Result${of}`, layers);
    for (const layer of probabilities) {
      const on = probabilities.length > 1 ? ` on ${layer.name}` : "";
      found[`prob:${layer.id}`] = probability(`Probability${on}${of}`, layer, scene);
      const truth = scene.layers.find((other) => other.kind === "truth" && other.name === layer.name);
      if (truth) found[`agreement:${layer.id}`] = agreement(`Agreement${on}${of}`, layer, truth, scene);
    }
  }
  const truths = scene.layers.filter((layer) => layer.kind === "truth");
  if (truths.length) found.truth = layered("Truth", truths);
  for (const [name, content] of Object.entries(found)) content.name = name;
  return found;
}

// The least value of a tile that a threshold marks.
function level(threshold) {
  return Math.ceil(threshold * FULL - 1e-3);
}

function layered(title, layers) {
  return {
    title,
    styled: true,
    layers: layers.map((layer) => layer.id),
    planes: layers.map((layer) => layer.plane),
    legend: [],
    paint(image, planes, viewer) {
      for (const layer of layers) {
        const own = viewer.settings.layers[layer.id];
        if (!own.on) continue;
        const least = layer.kind === "prob" ? level(viewer.thresholds[layer.id]) : 1;
        paintMask(image, planes[layer.plane], least, own.contour, layer.colour, own.opacity);
      }
    },
  };
}

function paintMask({ data, width, height }, values, least, contour, [red, green, blue], opacity) {
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (values[i] < least) continue;
      if (contour) {
        const inner =
          (x === 0 || values[i - 1] >= least) &&
          (x === width - 1 || values[i + 1] >= least) &&
          (y === 0 || values[i - width] >= least) &&
          (y === height - 1 || values[i + width] >= least);
        if (inner) continue;
      }
      lay(data, 4 * i, red, green, blue, opacity);
    }
  }
}

// A colour over what is there (Porter and Duff 1984, "over").
function lay(data, at, red, green, blue, opacity) {
  const below = (data[at + 3] / 255) * (1 - opacity);
  const alpha = opacity + below;
  data[at] = (red * opacity + data[at] * below) / alpha;
  data[at + 1] = (green * opacity + data[at + 1] * below) / alpha;
  data[at + 2] = (blue * opacity + data[at + 2] * below) / alpha;
  data[at + 3] = 255 * alpha;
}

function agreement(title, layer, truth, scene) {
  const { hit, missed, false: wrong } = scene.agreement;
  return {
    title,
    layers: [layer.id],
    planes: [layer.plane, truth.plane, scene.fov],
    legend: [
      ["hit", hit],
      ["missed", missed],
      ["false", wrong],
    ],
    paint({ data }, planes, viewer) {
      const [values, marked, inside] = [planes[layer.plane], planes[truth.plane], planes[scene.fov]];
      const least = level(viewer.thresholds[layer.id]);
      for (let i = 0; i < values.length; i++) {
        if (!inside[i]) continue;
        const found = values[i] >= least;
        const colour = found ? (marked[i] ? hit : wrong) : marked[i] ? missed : null;
        if (colour) lay(data, 4 * i, ...colour, 1);
        else lay(data, 4 * i, 0, 0, 0, 0.45); // the photograph steps back
      }
    },
  };
}

function probability(title, layer, scene) {
  const scale = scene.scale; // 256 colours from 0 to 1
  return {
    title,
    layers: [layer.id],
    planes: [layer.plane, scene.fov],
    legend: [0, 0.25, 0.5, 0.75, 1].map((value) => [String(value), scale[Math.round(value * 255)]]),
    paint({ data }, planes) {
      const [values, inside] = [planes[layer.plane], planes[scene.fov]];
      for (let i = 0; i < values.length; i++) if (inside[i]) lay(data, 4 * i, ...scale[Math.round((values[i] / FULL) * 255)], 1);
    },
  };
}

// --- numbers that follow the slider: from the histogram of probabilities inside the field of view

function describe(layer, threshold) {
  const [rest, marked] = layer.histogram;
  const from = Math.round(threshold * rest.length); // thresholds are whole thousandths, and so are the bins
  const sum = (list, start) => list.slice(start).reduce((total, value) => total + value, 0);
  const [wrong, hit] = [sum(rest, from), sum(marked, from)];
  const all = sum(rest, 0) + sum(marked, 0);
  const share = layer.withheld ? [] : [`${((100 * (wrong + hit)) / all).toFixed(1)} % of the field`];
  const true_ = sum(marked, 0);
  const scored = layer.scored && true_ ? [`Dice ${((2 * hit) / (hit + wrong + true_)).toFixed(3)}`] : [];
  return [...share, ...scored].join(" · ");
}

function stored() {
  try {
    return JSON.parse(sessionStorage.getItem(SETTINGS)) ?? {};
  } catch {
    return {};
  }
}

function store({ view, layout, first, second, wipe, layers }) {
  try {
    sessionStorage.setItem(SETTINGS, JSON.stringify({ view, layout, first, second, wipe, layers }));
  } catch {
    // Storage may be forbidden; the settings then last as long as the page.
  }
}
