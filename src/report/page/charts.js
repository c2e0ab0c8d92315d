// Axes, curves and heat maps on canvases. `view` is what all charts show of
// the steps; page.js moves it.
"use strict";
const LEFT = 54, RIGHT = 10, TOP = 8, BOTTOM = 24, ROW = 15;

/** A number in few characters: 0.00015 as 1.5e-4, 150000 as 150k. */
function number(v, digits = 4) {
  if (v === null || v === undefined || !isFinite(v)) return "–";
  const a = Math.abs(v);
  if (a === 0) return "0";
  if (a >= 1e12 || a < 1e-3) return v.toExponential(Math.max(0, digits - 2)).replace(/\.?0+e/, "e").replace("e+", "e");
  const [scale, unit] = a >= 1e9 ? [1e9, "G"] : a >= 1e6 ? [1e6, "M"] : a >= 1e4 ? [1e3, "k"] : [1, ""];
  return String(Number((v / scale).toPrecision(digits))) + unit;
}
const whole = (v) => Math.round(v).toString().replace(/\B(?=(\d{3})+$)/g, ",");

/** Round places between two values, about `count`. */
function ticks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 5, 10].find((m) => m * power >= raw * 0.999) || 10);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9 && found.length < 30; i++)
    found.push(Number((i * step).toPrecision(12)));
  return found;
}

/** Powers of ten, with 2 and 5 where there is room. */
function logTicks(low, high) {
  const from = Math.floor(Math.log10(low)), to = Math.ceil(Math.log10(high));
  const each = to - from > 12 ? Math.ceil((to - from) / 6) : 1, found = [];
  for (let e = from; e <= to; e += each)
    for (const m of to - from <= 2 ? [1, 2, 5] : [1]) {
      const v = m * 10 ** e;
      if (v >= low * 0.999 && v <= high * 1.001) found.push(v);
    }
  return found;
}

/** The series' points in the view's unit: place, least, mean, greatest; the
 * steps from and to which each stands for. */
function pointsOf(series, unit, last = Infinity) {
  if (!series) return [];
  if (series.points && series.unit === unit) return series.points;
  const found = [];
  for (let i = 0; i < series.y.length; i++) {
    const y = series.y[i];
    if (y === null) continue;
    if (series.w) {
      const from = i * series.w + 1, to = Math.min(last, (i + 1) * series.w);
      found.push({ x: (from + to) / 2 * unit, lo: series.lo[i], y, hi: series.hi[i], from, to });
    } else {
      const step = series.x[i];
      found.push({ x: step * unit, lo: y, y, hi: y, from: step, to: step });
    }
  }
  series.unit = unit;
  return (series.points = found);
}

/** The index of the point nearest to x; points ascend. */
function nearest(points, x) {
  let low = 0, high = points.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle].x < x) low = middle + 1; else high = middle;
  }
  return low > 0 && x - points[low - 1].x < points[low].x - x ? low - 1 : low;
}

/** A canvas ready to draw on, in CSS pixels. */
function surface(canvas, height) {
  const width = canvas.clientWidth || 300, ratio = Math.min(3, window.devicePixelRatio || 1);
  canvas.style.height = height + "px";
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const g = canvas.getContext("2d");
  g.scale(ratio, ratio);
  g.font = "12px system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif";
  return { g, width };
}

function stepAxis(g, view, place, left, right, bottom, colours) {
  g.fillStyle = colours.soft;
  g.textBaseline = "top";
  for (const tick of ticks(view.x0, view.x1, Math.max(2, Math.min(7, (right - left) / 50)))) {
    const x = place(tick), text = number(tick), half = g.measureText(text).width / 2;
    g.textAlign = "left";
    g.fillText(text, Math.min(Math.max(x - half, 0), right + RIGHT - 2 * half), bottom + 7);
  }
}

/** Curves of one metric. `lines`: [{points, colour, dashed, bad}], `marks`:
 * [{x0, x1, error, kind}]. Returns the places of the plot. */
function drawLines(canvas, chart, lines, marks, view, colours) {
  const height = 210, { g, width } = surface(canvas, height);
  const right = width - RIGHT, bottom = height - BOTTOM, span = view.x1 - view.x0;
  const px = (x) => LEFT + (x - view.x0) / span * (right - LEFT);
  let low = Infinity, high = -Infinity;
  for (const line of lines) {
    // The points at the view's edges belong to the curve in it.
    const inside = line.points.filter((p) => p.x >= view.x0 - line.step && p.x <= view.x1 + line.step);
    line.inside = chart.log ? inside.filter((p) => p.hi > 0) : inside;
    for (const p of line.inside) {
      const lo = chart.log && p.lo <= 0 ? p.hi : p.lo;
      low = Math.min(low, lo);
      high = Math.max(high, p.hi);
    }
  }
  const geometry = { left: LEFT, right, top: TOP, bottom };
  if (low > high) {
    g.fillStyle = colours.soft;
    g.textAlign = "center";
    g.fillText("nothing here", width / 2, height / 2);
    return geometry;
  }
  if (chart.zero && !chart.log) { low = Math.min(low, 0); high = Math.max(high, 0); }
  if (low === high) {
    const room = chart.log ? 0 : Math.max(Math.abs(low), 1e-6) / 10;
    if (chart.log) { low /= 2; high *= 2; } else { low -= room; high += room; }
  }
  const f = chart.log ? Math.log10 : (v) => v;
  const pad = (f(high) - f(low)) * 0.05;
  const from = chart.zero && !chart.log && low === 0 ? 0 : f(low) - pad, to = f(high) + pad;
  const py = (y) => bottom - (f(y) - from) / (to - from) * (bottom - TOP);

  g.strokeStyle = colours.rule;
  g.fillStyle = colours.soft;
  g.textBaseline = "middle";
  g.textAlign = "right";
  for (const tick of chart.log ? logTicks(10 ** from, 10 ** to) : ticks(from, to, 4)) {
    const y = Math.round(py(tick)) + 0.5;
    g.beginPath(); g.moveTo(LEFT, y); g.lineTo(right, y); g.stroke();
    g.fillText(number(tick), LEFT - 7, y);
  }
  stepAxis(g, view, px, LEFT, right, bottom, colours);

  g.save();
  g.beginPath(); g.rect(LEFT, 0, right - LEFT, bottom + 1); g.clip();
  for (const mark of marks) {
    g.fillStyle = g.strokeStyle = mark.error ? colours.error : colours.warning;
    const x0 = px(mark.x0), x1 = px(mark.x1);
    if (x1 - x0 > 0) { g.globalAlpha = 0.16; g.fillRect(x0, TOP, Math.max(1, x1 - x0), bottom - TOP); }
    g.globalAlpha = 0.35;
    g.beginPath(); g.moveTo(x0, TOP); g.lineTo(x0, bottom); g.stroke();
    g.globalAlpha = 1;
  }
  for (const line of lines) {
    const points = line.inside;
    if (!points.length) continue;
    g.strokeStyle = g.fillStyle = line.colour;
    // From least to greatest, never thinner than a pixel: a spike stays.
    g.lineWidth = Math.max(1.2, (line.step / span) * (right - LEFT));
    g.globalAlpha = lines.length > 2 ? 0.25 : 0.4;
    g.beginPath();
    for (const p of points) {
      if (p.hi <= p.lo) continue;
      const x = px(p.x);
      g.moveTo(x, py(chart.log && p.lo <= 0 ? p.y : p.lo));
      g.lineTo(x, py(p.hi));
    }
    g.stroke();
    g.globalAlpha = 1;
    g.lineWidth = line.dashed ? 1.4 : 1.8;
    g.setLineDash(line.dashed ? [5, 4] : []);
    g.beginPath();
    points.forEach((p, i) => {
      const y = py(chart.log && p.y <= 0 ? p.hi : p.y);
      if (i) g.lineTo(px(p.x), y); else g.moveTo(px(p.x), y);
    });
    g.stroke();
    g.setLineDash([]);
    if (points.length <= 40 && !line.dashed)
      for (const p of points) { g.beginPath(); g.arc(px(p.x), py(p.y), 2.2, 0, 7); g.fill(); }
    g.fillStyle = colours.error;
    for (const x of line.bad) {
      const at = px(x);
      g.beginPath(); g.moveTo(at - 4, TOP - 6); g.lineTo(at + 4, TOP - 6); g.lineTo(at, TOP + 3); g.fill();
    }
  }
  g.restore();
  pointer(g, view, px, TOP, bottom, colours);
  return geometry;
}

/** The reading line, and what is being chosen by dragging. */
function pointer(g, view, px, top, bottom, colours) {
  if (view.drag) {
    g.fillStyle = colours.ink;
    g.globalAlpha = 0.12;
    g.fillRect(px(view.drag[0]), top, px(view.drag[1]) - px(view.drag[0]), bottom - top);
    g.globalAlpha = 1;
  }
  if (view.cursor !== null && view.cursor >= view.x0 && view.cursor <= view.x1) {
    g.strokeStyle = colours.soft;
    g.lineWidth = 1;
    const x = Math.round(px(view.cursor)) + 0.5;
    g.beginPath(); g.moveTo(x, top); g.lineTo(x, bottom); g.stroke();
  }
}

// Colours of a ratio's logarithm to base 2: a half and less is blue, the usual
// recedes into the card, the eightfold that the detector calls a spike is red.
const HEAT = {
  light: [[-3, 33, 102, 172], [-1, 166, 200, 225], [-0.4, 244, 244, 244], [0.5, 244, 244, 244], [1.2, 253, 219, 160], [2, 250, 160, 85], [3, 214, 47, 39], [5, 80, 0, 20]],
  dark: [[-3, 90, 160, 230], [-1, 42, 70, 100], [-0.4, 30, 35, 42], [0.5, 30, 35, 42], [1.2, 100, 70, 30], [2, 180, 100, 30], [3, 250, 90, 60], [5, 255, 235, 220]],
};
function heatColour(ratio, dark) {
  const stops = dark ? HEAT.dark : HEAT.light;
  const v = Math.min(5, Math.max(-3, Math.log2(Math.max(ratio, 1e-9))));
  let i = 1;
  while (stops[i][0] < v) i++;
  const [a, b] = [stops[i - 1], stops[i]], share = (v - a[0]) / (b[0] - a[0]);
  return `rgb(${[1, 2, 3].map((k) => Math.round(a[k] + share * (b[k] - a[k]))).join(",")})`;
}

/** Layers x steps, the first layer above. A pixel shows the greatest of the
 * values that fall on it. */
function drawHeat(canvas, heat, unit, view, colours, picked) {
  const rows = heat.layers.length, height = rows * ROW + BOTTOM + 34, { g, width } = surface(canvas, height);
  const left = Math.min(104, width * 0.28), right = width - RIGHT, bottom = TOP + rows * ROW, span = view.x1 - view.x0;
  const px = (x) => left + (x - view.x0) / span * (right - left);
  heat.layers.forEach((layer, row) => {
    const y = TOP + row * ROW;
    g.fillStyle = row === picked ? colours.ink : colours.soft;
    g.textAlign = "right";
    g.textBaseline = "middle";
    g.fillText(layer.name, left - 6, y + ROW / 2, left - 8);
    for (let x = Math.floor(left); x < right; x++) {
      const step = (at) => (view.x0 + (at - left) / (right - left) * span) / unit;
      const first = Math.max(0, Math.floor((step(x) - 1) / heat.w)), last = Math.max(first, Math.ceil((step(x + 1) - 1) / heat.w) - 1);
      let value = null;
      for (let i = first; i <= last && i < layer.v.length; i++)
        if (layer.v[i] !== null && (value === null || layer.v[i] > value)) value = layer.v[i];
      if (value === null) continue;
      g.fillStyle = heatColour(value, colours.dark);
      g.fillRect(x, y, 1.5, ROW - 1);
    }
    g.fillStyle = colours.error;
    for (const step of layer.bad) {
      const x = px(step * unit);
      if (x >= left && x <= right) g.fillRect(x - 1, y, 3, ROW - 1);
    }
    if (row === picked) { g.strokeStyle = colours.ink; g.lineWidth = 1; g.strokeRect(left - 0.5, y - 0.5, right - left + 1, ROW); }
  });
  stepAxis(g, view, px, left, right, bottom, colours);
  // What the colours mean.
  const bar = Math.min(240, right - left - 40), y = height - 26;
  for (let i = 0; i < bar; i++) { g.fillStyle = heatColour(2 ** (-3 + 8 * i / bar), colours.dark); g.fillRect(left + i, y, 1.5, 9); }
  g.fillStyle = colours.soft;
  g.textBaseline = "top";
  for (const [v, text] of [[-3, "1/8"], [0, "usual"], [3, "8×"], [5, "32×"]]) {
    g.textAlign = v === -3 ? "left" : "center";
    g.fillText(text, left + (v + 3) / 8 * bar, y + 12);
  }
  pointer(g, view, px, TOP, bottom, colours);
  return { left, right, top: TOP, bottom };
}
