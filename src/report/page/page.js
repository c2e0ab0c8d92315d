// The page: its charts, what they show; mouse, touch, keyboard.
const $ = (id) => document.getElementById(id);
const make = (tag, put = {}, ...inside) => {
  const element = Object.assign(document.createElement(tag), put);
  element.append(...inside);
  return element;
};
const store = (kind, key, value) => {
  // A browser may refuse to keep anything for a file.
  try {
    if (value === undefined) return JSON.parse(window[kind].getItem(key));
    window[kind].setItem(key, JSON.stringify(value));
  } catch { return null; }
};
const PLACE = "xla-moco " + location.pathname + document.title;

let data = JSON.parse($("data").textContent);
const view = { x0: 0, x1: 1, cursor: null, drag: null };
const shown = Object.assign({ align: data.align, zoomed: false, off: [], log: {}, pick: {} }, store("sessionStorage", PLACE));
let charts = [], colours = {}, queued = false;

const unitOf = (run) => shown.align === "samples" ? run.batch || 1 : 1;
const unitName = () => shown.align === "samples" ? "samples" : "step";
const lastOf = () => Math.max(1, ...data.runs.map((run) => run.last * unitOf(run)));
const visible = () => data.runs.map((run, i) => [run, i]).filter(([run]) => !shown.off.includes(run.name));
const keep = () => store("sessionStorage", PLACE, { ...shown, x0: view.x0, x1: view.x1, scroll: window.scrollY });

function readColours() {
  const probe = $("probe") || document.body.appendChild(make("i", { id: "probe" }));
  const names = ["card", "ink", "soft", "rule", "guide", "warning", "error", "run0", "run1", "run2", "run3", "run4", "run5"];
  for (const name of names) {
    probe.style.color = `var(--${name})`;
    colours[name] = getComputedStyle(probe).color;
  }
  const [r, g, b] = colours.card.match(/[\d.]+/g).map(Number);
  colours.dark = r + g + b < 380;
}

// ---- The view.

function show(x0, x1) {
  const last = lastOf(), least = Math.max(last * 1e-6, 4);
  const span = Math.min(last, Math.max(least, x1 - x0));
  const from = Math.min(Math.max(0, (x0 + x1 - span) / 2), last - span);
  [view.x0, view.x1] = [from, from + span];
  shown.zoomed = span < last * 0.9999;
  keep();
  redraw();
}
const reset = () => show(0, lastOf());
function zoom(factor, around = view.cursor ?? (view.x0 + view.x1) / 2) {
  const at = around < view.x0 || around > view.x1 ? (view.x0 + view.x1) / 2 : around;
  show(at - (at - view.x0) * factor, at + (view.x1 - at) * factor);
}
function pan(share) {
  const by = (view.x1 - view.x0) * share, last = lastOf();
  const from = Math.min(Math.max(0, view.x0 + by), last - (view.x1 - view.x0));
  show(from, from + view.x1 - view.x0);
}
function redraw() {
  if (queued) return;
  queued = true;
  requestAnimationFrame(() => { queued = false; drawAll(); });
}

// ---- The charts.

function build() {
  const grid = $("charts");
  grid.textContent = "";
  charts = [];
  if (!data.runs.some((run) => run.last > 0)) {
    grid.append(make("p", { textContent: "No step has been recorded yet." }));
    return;
  }
  const has = (key) => data.runs.some((run) => run.series[key]);
  for (const chart of data.charts) {
    chart.parts = chart.family ? [...new Set(data.runs.flatMap((run) => Object.keys(run.series).filter((key) => key.startsWith(chart.key))))] : null;
    if (!chart.family && !has(chart.key)) continue;
    addLines(grid, chart);
    if (chart.key === "grad_norm") addHeats(grid);
  }
  if (!has("grad_norm")) addHeats(grid);
}

function frame(grid, title, whole) {
  const caption = make("figcaption", {}, make("span", { textContent: title }));
  const canvas = make("canvas", { tabIndex: 0 });
  canvas.setAttribute("role", "img");
  const output = make("output");
  const figure = make("figure", { className: whole ? "card whole" : "card" }, caption, canvas, output);
  grid.append(figure);
  return { caption, canvas, output, title };
}

function addLines(grid, chart) {
  const own = Object.assign(frame(grid, chart.title), { chart });
  if (chart.parts) {
    const select = make("select", { ariaLabel: `${chart.title}: which` });
    for (const part of chart.parts) select.append(make("option", { value: part, textContent: part.slice(chart.key.length) }));
    if (chart.parts.includes(shown.pick[chart.key])) select.value = shown.pick[chart.key];
    select.addEventListener("change", () => { shown.pick[chart.key] = select.value; keep(); redraw(); });
    own.select = select;
    own.caption.append(select);
  }
  const log = make("button", { type: "button", textContent: "log" });
  log.title = "logarithmic axis (key l)";
  own.log = log;
  log.addEventListener("click", () => toggleLog(own));
  own.caption.append(log);
  listen(own);
  charts.push(own);
}

function addHeats(grid) {
  data.runs.forEach((run, i) => {
    if (!run.heat.layers.length) return;
    const name = data.runs.length > 1 ? `, ${run.name}` : "";
    const own = Object.assign(frame(grid, `Gradient of each layer over its usual${name}`, true), { heatOf: i, row: null });
    listen(own);
    charts.push(own);
  });
}

const keyOf = (own) => own.select ? own.select.value : own.chart.key;

/** A spike of many times the median would flatten all else. */
function isLog(own) {
  const key = own.chart.key;
  if (key in shown.log) return shown.log[key];
  if (!own.chart.zero) return false;
  return data.runs.some((run) => {
    const values = pointsOf(run.series[keyOf(own)], unitOf(run), run.last);
    if (values.length < 3 || values.some((p) => p.lo <= 0)) return false;
    const sorted = values.map((p) => p.y).sort((a, b) => a - b);
    return Math.max(...values.map((p) => p.hi)) > 20 * sorted[sorted.length >> 1];
  });
}
function toggleLog(own) {
  shown.log[own.chart.key] = !isLog(own);
  keep();
  redraw();
}

function drawAll() {
  const last = lastOf();
  $("range").textContent = shown.zoomed
    ? `${unitName()} ${whole(view.x0)} to ${whole(view.x1)} of ${whole(last)}` : `all ${whole(last)} ${unitName() === "step" ? "steps" : "samples"}`;
  for (const own of charts) own.chart ? drawOne(own) : drawHeatOf(own);
}

const stepWidth = (series, unit) => (series.w || (series.x.length > 1 ? (series.x.at(-1) - series.x[0]) / (series.x.length - 1) : 1)) * unit;

function drawOne(own) {
  const key = keyOf(own), lines = [];
  own.chart.log = isLog(own);
  own.log.setAttribute("aria-pressed", own.chart.log);
  const runs = visible();
  for (const [run, i] of runs) {
    const unit = unitOf(run);
    const guide = own.chart.guide && run.series[own.chart.guide];
    if (guide) lines.push({ points: pointsOf(guide, unit, run.last), step: stepWidth(guide, unit), colour: runs.length > 1 ? colours["run" + i] : colours.guide, dashed: true, bad: [] });
  }
  const marks = [];
  for (const [run, i] of runs) {
    const series = run.series[key], unit = unitOf(run);
    if (!series) continue;
    lines.push({ run, points: pointsOf(series, unit, run.last), step: stepWidth(series, unit), colour: colours["run" + i], bad: (series.bad || []).map((step) => step * unit) });
    for (const mark of run.marks)
      if (isAbout(mark, key)) marks.push({ ...mark, x0: mark.from * unit, x1: mark.to * unit });
  }
  own.lines = lines.filter((line) => line.run);
  own.geometry = drawLines(own.canvas, own.chart, lines, marks, view, colours);
  readOut(own, own.lines, marks.length);
}

/** Dips belong to the kNN, spikes to the gradients; the loss shows all. */
function isAbout(mark, key) {
  if (key === "loss") return true;
  if (key === "knn_top1") return mark.kind === "knn_dip" || mark.kind === "degradation";
  return key.startsWith("grad_norm") && mark.kind === "gradient_spike";
}

function readOut(own, lines, marks) {
  const parts = [], many = data.runs.length > 1;
  for (const { run, points } of lines) {
    if (!points.length) continue;
    const name = many ? `${run.name} ` : "";
    const at = view.cursor === null ? points.at(-1) : points[nearest(points, view.cursor)];
    const span = at.from === at.to ? `step ${whole(at.from)}` : `steps ${whole(at.from)}–${whole(at.to)}`;
    const range = at.hi > at.lo ? ` (${number(at.lo)} to ${number(at.hi)})` : "";
    const lost = run.series[keyOf(own)].lost;
    parts.push([name, number(at.y), `${range}, ${span}${lost ? `; ${lost} not finite ▼` : ""}`]);
  }
  own.output.textContent = "";
  parts.forEach(([name, value, rest], i) => own.output.append(i ? " · " : "", name, make("b", { textContent: value }), rest));
  const chance = own.chart.guideName ? `; dashed: ${own.chart.guideName}` : "";
  if (parts.length) own.output.append(chance);
  const extremes = lines.filter((line) => line.points.length).map((line) => {
    let low = Infinity, high = -Infinity;
    for (const p of line.points) { low = Math.min(low, p.lo); high = Math.max(high, p.hi); }
    return `${many ? line.run.name + ": " : ""}last ${number(line.points.at(-1).y)}, least ${number(low)}, greatest ${number(high)}`;
  });
  label(own, `${extremes.join("; ")}${marks ? `; ${marks} events marked` : ""}`);
}

const KEYS = "Keys: arrows move the reading line, with shift the view; plus and minus zoom, 0 shows all";
function label(own, text) {
  own.canvas.setAttribute("aria-label", `${own.title}: ${text}. ${KEYS}${own.chart ? ", l for a logarithmic axis" : ", up and down choose a layer"}.`);
}

function drawHeatOf(own) {
  const run = data.runs[own.heatOf], unit = unitOf(run);
  own.canvas.parentElement.hidden = shown.off.includes(run.name);
  if (own.canvas.parentElement.hidden) return;
  own.geometry = drawHeat(own.canvas, run.heat, unit, view, colours, own.row);
  const { w, layers } = run.heat;
  let greatest = { v: -1 };
  for (const layer of layers) layer.v.forEach((v, i) => { if (v !== null && v > greatest.v) greatest = { v, i, name: layer.name }; });
  const spanOf = (i) => w > 1 ? `steps ${whole(i * w + 1)}–${whole(Math.min(run.last, (i + 1) * w))}` : `step ${whole(i + 1)}`;
  const best = greatest.v < 0 ? "nothing yet" : `greatest ${number(greatest.v, 3)}× in ${greatest.name}, ${spanOf(greatest.i)}`;
  own.output.textContent = "";
  if (own.row !== null && view.cursor !== null) {
    const i = Math.max(0, Math.floor((view.cursor / unit - 1) / w)), layer = layers[own.row];
    const value = layer.v[i];
    own.output.append(`${layer.name}: `, make("b", { textContent: value === null || value === undefined ? "–" : `${number(value, 3)}×` }), value === undefined ? " no step there" : ` its median of 100 steps, ${spanOf(i)}${w > 1 ? ", the greatest of these" : ""}`);
  } else own.output.append(`Over the median of the 100 steps before; ${best}. Red bars: not finite.`);
  label(own, `${layers.length} layers; ${best}`);
}

// ---- Mouse, touch, keyboard.

function listen(own) {
  const { canvas } = own;
  const placeOf = (event) => {
    const { left, right } = own.geometry, x = event.clientX - canvas.getBoundingClientRect().left;
    return view.x0 + Math.min(1, Math.max(0, (x - left) / (right - left))) * (view.x1 - view.x0);
  };
  const rowOf = (event) => {
    const row = Math.floor((event.clientY - canvas.getBoundingClientRect().top - TOP) / ROW);
    return Math.min(data.runs[own.heatOf].heat.layers.length - 1, Math.max(0, row));
  };
  let from = null;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button || !own.geometry) return;
    from = { x: event.clientX, at: placeOf(event) };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!own.geometry) return;
    view.cursor = placeOf(event);
    if (own.heatOf !== undefined) own.row = rowOf(event);
    if (from && Math.abs(event.clientX - from.x) > 6) view.drag = [from.at, view.cursor].sort((a, b) => a - b);
    redraw();
  });
  const end = (event) => {
    const drag = view.drag, began = from;
    view.drag = from = null;
    if (event.type === "pointerup" && drag) return show(...drag);
    if (event.type === "pointerup" && began && own.heatOf !== undefined) pickLayer(own);
    redraw();
  };
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", end);
  canvas.addEventListener("pointerleave", (event) => {
    if (from || event.pointerType === "touch") return;
    view.cursor = null;
    if (own.heatOf !== undefined) own.row = null;
    redraw();
  });
  canvas.addEventListener("dblclick", reset);
  // Scrolling stays scrolling; with Ctrl, and on a pinched touchpad, it zooms.
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    zoom(Math.exp(Math.max(-50, Math.min(50, event.deltaY)) * 0.01), placeOf(event));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const by = (share) => {
      const at = view.cursor ?? (view.x0 + view.x1) / 2;
      view.cursor = Math.min(view.x1, Math.max(view.x0, at + share * (view.x1 - view.x0)));
      redraw();
    };
    const row = (by) => {
      const last = data.runs[own.heatOf].heat.layers.length - 1;
      own.row = own.row === null ? 0 : Math.min(last, Math.max(0, own.row + by));
      view.cursor ??= (view.x0 + view.x1) / 2;
      redraw();
    };
    const heat = own.heatOf !== undefined;
    const actions = {
      ArrowLeft: () => event.shiftKey ? pan(-0.25) : by(-0.01), ArrowRight: () => event.shiftKey ? pan(0.25) : by(0.01),
      "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), _: () => zoom(2), 0: reset,
      Escape: () => { view.cursor = null; reset(); },
      ...(heat ? { ArrowUp: () => row(-1), ArrowDown: () => row(1), Enter: () => pickLayer(own) } : { l: () => toggleLog(own) }),
    };
    if (!Object.hasOwn(actions, event.key)) return;
    event.preventDefault();
    actions[event.key]();
  });
}

/** The layer's own curve is shown in the chart of layers. */
function pickLayer(own) {
  if (own.row === null) return;
  const key = "grad_norm/" + data.runs[own.heatOf].heat.layers[own.row].name;
  const chart = charts.find((other) => other.select && other.chart.key === "grad_norm/");
  if (!chart) return;
  chart.select.value = shown.pick["grad_norm/"] = key;
  keep();
  redraw();
}
