// The map, the reading of attention, the theme.
const $ = (id) => document.getElementById(id);
const make = (tag, put = {}, ...inside) => {
  const element = Object.assign(document.createElement(tag), put);
  element.append(...inside);
  return element;
};
const stored = (value) => {
  // A browser may refuse to keep anything for a file.
  try {
    if (value === undefined) return JSON.parse(localStorage.getItem("xla-moco theme"));
    localStorage.setItem("xla-moco theme", JSON.stringify(value));
  } catch { return null; }
};
const data = JSON.parse($("data").textContent);
const map = data.map, sheet = map.sheet, canvas = $("points");
const state = { plane: 0, off: new Set(), at: null };
const NONE = -1;
const classOf = (i) => map.labels[i] ?? NONE;
const nameOf = (label) => label === NONE ? "no class" : map.classes[label];
const labels = [...new Set(map.labels.map((label) => label ?? NONE))].sort((a, b) => a - b);

// ---- Colours: hues far apart, and lighter where the page is dark.

// Hue, saturation, and how much lighter than others.
const SHADES = [[212, 70, 4], [28, 85, 8], [145, 70, -4], [330, 75, 16], [48, 85, 4], [262, 60, 4], [184, 75, 2], [0, 70, -6], [92, 60, 10], [22, 40, -12]];
function isDark() {
  const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/[\d.]+/g).map(Number);
  return r + g + b < 380;
}
function colour(label, dark) {
  if (label === NONE) return dark ? "#78828d" : "#8d959e";
  const place = labels.indexOf(label), round = Math.floor(place / SHADES.length);
  const [hue, saturation, lighter] = SHADES[place % SHADES.length];
  return `hsl(${(hue + round * 17) % 360} ${saturation}% ${(dark ? 64 : 42) + lighter}%)`;
}

// ---- The map.

let queued = false;
function redraw() {
  if (queued) return;
  queued = true;
  requestAnimationFrame(() => { queued = false; draw(); });
}
const MARGIN = 16;
for (const plane of map.planes) {
  // Around 5000 along both axes, and as wide as they come.
  plane.span = [0, 1].map((axis) => Math.max(1, ...plane.points.map((p) => 2 * Math.abs(p[axis] - 5000))));
}
const placeOf = (i) => {
  // The same scale along both axes.
  const { points, span } = map.planes[state.plane], { clientWidth: width, clientHeight: height } = canvas;
  const scale = Math.min((width - 2 * MARGIN) / span[0], (height - 2 * MARGIN) / span[1]);
  return [width / 2 + (points[i][0] - 5000) * scale, height / 2 - (points[i][1] - 5000) * scale];
};
const seen = (i) => !state.off.has(classOf(i));
function draw() {
  const density = window.devicePixelRatio || 1, dark = isDark();
  canvas.width = canvas.clientWidth * density;
  canvas.height = canvas.clientHeight * density;
  const pen = canvas.getContext("2d");
  pen.scale(density, density);
  const radius = map.names.length > 400 ? 3 : 4.5;
  const dot = (i, size) => {
    const [x, y] = placeOf(i);
    pen.beginPath();
    pen.arc(x, y, size, 0, 7);
    pen.fillStyle = colour(classOf(i), dark);
    pen.fill();
  };
  pen.globalAlpha = 0.8;
  map.names.forEach((_, i) => { if (seen(i)) dot(i, radius); });
  pen.globalAlpha = 1;
  if (state.at !== null && seen(state.at)) {
    dot(state.at, radius + 3);
    pen.lineWidth = 2;
    pen.strokeStyle = dark ? "#fff" : "#000";
    pen.stroke();
  }
}
function nearestTo(x, y, most) {
  let best = null, least = most;
  map.names.forEach((_, i) => {
    if (!seen(i)) return;
    const [px, py] = placeOf(i), apart = Math.hypot(px - x, py - y);
    if (apart < least) [best, least] = [i, apart];
  });
  return best;
}
function point(i) {
  if (i === state.at) return;
  state.at = i;
  const box = $("pointed");
  box.textContent = "";
  if (i === null) box.append(make("span", { textContent: "No picture chosen." }));
  else {
    const picture = make("i"), last = sheet.columns - 1, rows = Math.ceil(map.names.length / sheet.columns);
    const share = (at, of) => of ? `${100 * at / of}%` : "0";
    Object.assign(picture.style, {
      backgroundImage: `url("${sheet.uri}")`, backgroundSize: `${100 * sheet.columns}% ${100 * rows}%`,
      backgroundPosition: `${share(i % sheet.columns, last)} ${share(Math.floor(i / sheet.columns), rows - 1)}`,
    });
    box.append(picture, make("div", {}, make("b", { textContent: nameOf(classOf(i)) }), make("small", { textContent: ` ${map.names[i]}` })));
  }
  redraw();
}
/** The nearest point in a direction, those straight ahead first. */
function step(dx, dy) {
  if (state.at === null || !seen(state.at)) return point(nearestTo(canvas.clientWidth / 2, canvas.clientHeight / 2, Infinity));
  const [x, y] = placeOf(state.at);
  let best = null, least = Infinity;
  map.names.forEach((_, i) => {
    if (i === state.at || !seen(i)) return;
    const [px, py] = placeOf(i), ahead = (px - x) * dx + (py - y) * dy, beside = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
    if (ahead > 0.1 && ahead + 2 * beside < least) [best, least] = [i, ahead + 2 * beside];
  });
  if (best !== null) point(best);
}
function choosePlane(k) {
  state.plane = k;
  $("planewords").textContent = map.planes[k].words;
  [...$("planes").children].forEach((button, i) => button.setAttribute("aria-pressed", i === k));
  canvas.setAttribute("aria-label", `${map.planes[k].name} of ${map.names.length} test pictures. Keys: arrows move from point to point.`);
  redraw();
}
function legend() {
  const box = $("legend"), dark = isDark();
  box.textContent = "";
  const toggle = (text, act) => {
    const button = make("button", { type: "button", textContent: text });
    button.addEventListener("click", () => { act(); shades(); redraw(); });
    box.append(button);
    return button;
  };
  toggle("All", () => state.off.clear());
  toggle("None", () => labels.forEach((label) => state.off.add(label)));
  for (const label of labels) {
    const count = map.labels.filter((other) => (other ?? NONE) === label).length;
    const button = toggle("", () => { if (!state.off.delete(label)) state.off.add(label); });
    const dot = make("i");
    dot.style.background = colour(label, dark);
    button.append(dot, `${nameOf(label)} ${count}`);
    button.title = `Show or hide ${nameOf(label)}`;
    button.dataset.label = label;
  }
  shades();
}
function shades() {
  for (const button of $("legend").querySelectorAll("[data-label]")) button.setAttribute("aria-pressed", !state.off.has(Number(button.dataset.label)));
}
function listen() {
  const at = (event, most) => {
    const box = canvas.getBoundingClientRect();
    return nearestTo(event.clientX - box.left, event.clientY - box.top, most);
  };
  for (const [kind, most] of [["pointermove", 20], ["pointerdown", 40]]) canvas.addEventListener(kind, (event) => {
    const found = at(event, most);
    if (found !== null) point(found);
  });
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === "Escape") point(null);
    else if (Object.hasOwn(ways, event.key)) step(...ways[event.key]);
    else return;
    event.preventDefault();
  });
}

// ---- Attention: what a patch weighs.

function looks() {
  const { side, weights } = data.attention;
  for (const card of document.querySelectorAll("[data-look]")) {
    const output = card.querySelector("output");
    for (const tile of card.querySelectorAll("[data-at]")) {
      const own = weights[card.dataset.look][tile.dataset.at], name = tile.getAttribute("aria-label").split(":")[0];
      let mark = null, place = [side >> 1, side >> 1];
      const read = (row, column) => {
        place = [row, column];
        mark ??= tile.appendChild(make("i"));
        Object.assign(mark.style, { left: `${100 * column / side}%`, top: `${100 * row / side}%`, width: `${100 / side}%`, height: `${100 / side}%` });
        const weight = own[1 + row * side + column];
        output.textContent = `${name}: ${(100 * weight).toFixed(2)}% on the patch of row ${row + 1}, column ${column + 1}; ${(weight * side * side).toFixed(1)} times an even share`;
      };
      const leave = () => { mark?.remove(); mark = null; output.textContent = ""; };
      const inside = (x) => Math.min(side - 1, Math.max(0, Math.floor(x * side)));
      tile.addEventListener("pointermove", (event) => {
        const box = tile.getBoundingClientRect();
        read(inside((event.clientY - box.top) / box.height), inside((event.clientX - box.left) / box.width));
      });
      tile.addEventListener("pointerleave", leave);
      tile.addEventListener("blur", leave);
      tile.addEventListener("keydown", (event) => {
        const ways = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
        if (!Object.hasOwn(ways, event.key) || event.ctrlKey || event.metaKey || event.altKey) return;
        event.preventDefault();
        const [down, right] = ways[event.key];
        read(inside((place[0] + down + 0.5) / side), inside((place[1] + right + 0.5) / side));
      });
    }
  }
  $("heat").addEventListener("input", (event) => document.documentElement.style.setProperty("--heat", event.target.value / 100));
}

// ---- The theme.

const THEMES = ["system", "light", "dark"];
function theme(name) {
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  $("theme").textContent = `Theme: ${name}`;
  legend();
  redraw();
}
let themeNow = stored();
if (!THEMES.includes(themeNow)) themeNow = "system";
$("theme").addEventListener("click", () => {
  themeNow = THEMES[(THEMES.indexOf(themeNow) + 1) % THEMES.length];
  stored(themeNow);
  theme(themeNow);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme(themeNow));

document.querySelector(".plane").hidden = false;
map.planes.forEach((plane, k) => {
  const button = make("button", { type: "button", textContent: plane.name });
  button.addEventListener("click", () => choosePlane(k));
  $("planes").append(button);
});
listen();
theme(themeNow);
choosePlane(0);
state.at = undefined;
point(null);
if (data.attention) looks();
addEventListener("resize", redraw);
