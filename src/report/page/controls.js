// The bar, the theme, newer numbers, and the start of it all.

function bar() {
  const bar = $("bar");
  bar.textContent = "";
  bar.hidden = !data.runs.some((run) => run.last > 0);
  const button = (text, title, act) => {
    const made = make("button", { type: "button", textContent: text, title, ariaLabel: title });
    made.addEventListener("click", act);
    bar.append(made);
    return made;
  };
  button("+", "Zoom in (key + on a chart; or drag over it)", () => zoom(0.5));
  button("−", "Zoom out (key -)", () => zoom(2));
  button("◀", "Earlier (shift and left)", () => pan(-0.5));
  button("▶", "Later (shift and right)", () => pan(0.5));
  button("All", "Show all steps (key 0, or double click)", reset);
  if (data.runs.length > 1) {
    if (data.runs.every((run) => run.batch > 0)) {
      const align = button("", "Steps or samples along the axis", () => {
        const [from, to] = [view.x0 / lastOf(), view.x1 / lastOf()];
        view.cursor = null;
        shown.align = shown.align === "samples" ? "step" : "samples";
        align.textContent = `by ${unitName()}`;
        show(from * lastOf(), to * lastOf());
      });
      align.textContent = `by ${unitName()}`;
    }
    data.runs.forEach((run, i) => {
      const legend = button("", `Show or hide ${run.name}`, () => {
        shown.off = shown.off.includes(run.name) ? shown.off.filter((name) => name !== run.name) : [...shown.off, run.name];
        legend.setAttribute("aria-pressed", !shown.off.includes(run.name));
        keep();
        redraw();
      });
      legend.className = "run";
      legend.append(make("i", { className: "run" + i }), run.name);
      legend.setAttribute("aria-pressed", !shown.off.includes(run.name));
    });
  }
  bar.append(make("span", { className: "range", id: "range" }));
}

const THEMES = ["system", "light", "dark"];
function theme(name) {
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  $("theme").textContent = `Theme: ${name}`;
  readColours();
  redraw();
}
let themeNow = store("localStorage", "xla-moco theme");
if (!THEMES.includes(themeNow)) themeNow = "system";
$("theme").addEventListener("click", () => {
  themeNow = THEMES[(THEMES.indexOf(themeNow) + 1) % THEMES.length];
  store("localStorage", "xla-moco theme", themeNow);
  theme(themeNow);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme(themeNow));

// ---- Newer numbers. A live page asks its server; a file is read again.

async function refresh() {
  const before = lastOf(), wasAll = !shown.zoomed;
  const answer = await fetch(location.pathname, { cache: "no-store", signal: AbortSignal.timeout(20000) });
  if (!answer.ok) throw new Error(answer.status);
  const next = new DOMParser().parseFromString(await answer.text(), "text/html");
  const numbers = next.getElementById("data").textContent;
  if (numbers === $("data").textContent) return;
  for (const id of ["above", "below"]) {
    const open = [...$(id).querySelectorAll("details[open]")].map((d) => d.id);
    const checked = $("trouble")?.checked;
    $(id).innerHTML = next.getElementById(id).innerHTML;
    for (const d of open) if (d && $(d)) $(d).open = true;
    if ($("trouble")) $("trouble").checked = checked ?? false;
  }
  const sort = () => JSON.stringify([data.charts.map((c) => c.key), data.runs.map((r) => [r.name, Object.keys(r.series)])]);
  const old = sort();
  $("data").textContent = numbers;
  data = JSON.parse(numbers);
  // New kinds of numbers make new charts; else the old ones keep the focus.
  if (sort() !== old || before <= 1) { build(); bar(); }
  else for (const own of charts) if (own.chart) own.chart = Object.assign(own.chart, data.charts.find((c) => c.key === own.chart.key));
  wasAll ? reset() : redraw();
}
function follow() {
  if (data.live) {
    let pause = 3000;
    const again = () => setTimeout(() => (document.hidden ? Promise.resolve() : refresh())
      .then(() => { pause = 3000; document.body.classList.remove("away"); }, () => { pause = Math.min(60000, pause * 2); document.body.classList.add("away"); })
      .then(again), pause);
    again();
  } else if (data.going && Date.now() - data.made < 15 * 60e3) {
    setInterval(() => {
      const busy = document.hidden || document.activeElement !== document.body || view.drag;
      if (!busy) { keep(); location.reload(); }
    }, 60e3);
  }
}

bar();
build();
theme(themeNow);
if (shown.zoomed && shown.x1 > shown.x0) show(shown.x0, shown.x1); else reset();
if (shown.scroll) window.scrollTo(0, shown.scroll);
addEventListener("resize", redraw);
follow();
