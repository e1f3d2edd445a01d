"use strict";
// Charts: Apache ECharts draws; here are colours for light and dark, tooltips of text nodes, and keys.

const CHARTS = [];
const UNIT_COLOURS = { conv: ["#1f6fd6", "#6ea8ff"], shift: ["#c2571a", "#ff9f5c"], adder: ["#1a7f4b", "#5fd39a"],
  vector: ["#7a4fb5", "#c3a2f5"], host: ["#b3261e", "#ff9a90"] };
const SERIES = [["#1f6fd6", "#6ea8ff"], ["#c2571a", "#ff9f5c"], ["#1a7f4b", "#5fd39a"], ["#7a4fb5", "#c3a2f5"],
  ["#946800", "#e3c04d"], ["#00798c", "#5cc8d8"], ["#a02c6d", "#f08bc0"], ["#5b6370", "#a3abb7"]];

const unitColour = (unit) => (UNIT_COLOURS[unit] || SERIES[7])[isDark() ? 1 : 0];
const seriesColour = (index) => SERIES[index % SERIES.length][isDark() ? 1 : 0];
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// A box with a chart in it. options(): what ECharts gets, asked again when colours change. keys: {count, show(n, chart),
// open(n)}: arrows step through the points, Enter opens one; what they show is read out.
function chart(label, options, { low = false, keys = null } = {}) {
  const box = el("div", { class: `chart${low ? " low" : ""}`, tabindex: "0", role: "group", "aria-roledescription": "chart",
    "aria-label": keys ? `${label}. Arrow keys step through it, Enter opens a layer.` : label });
  const told = el("p", { class: "dim", role: "status" });
  const made = { box, options, instance: null };
  CHARTS.push(made);
  if (keys) {
    let at = -1;
    box.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (step && keys.count) {
        if (!made.instance) draw(made);
        at = (at + step + keys.count + (at < 0 && step < 0 ? 1 : 0)) % keys.count;
        told.textContent = keys.show(at, made.instance);
        event.preventDefault();
      } else if (event.key === "Enter" && at >= 0 && keys.open) {
        keys.open(at);
      }
    });
  }
  return el("div", {}, box, keys ? told : null);
}

function base() {
  const text = css("--text"), line = css("--line"), dim = css("--dim");
  const axis = { axisLine: { lineStyle: { color: line } }, axisLabel: { color: dim, hideOverlap: true }, nameTextStyle: { color: dim },
    splitLine: { lineStyle: { color: line, opacity: 0.5 } } };
  return { text, line, dim, axis };
}

// What every chart starts from; tooltips are elements, so that no name is read as markup.
function common(more) {
  const { text } = base();
  return { animation: false, textStyle: { color: text }, backgroundColor: "transparent",
    legend: { textStyle: { color: text }, type: "scroll", top: 0 },
    tooltip: { confine: true, backgroundColor: css("--panel"), borderColor: css("--line"), textStyle: { color: text } },
    ...more };
}

const tip = (title, ...lines) => el("div", { class: "tip" }, el("b", {}, title), lines.filter(Boolean).map((line) => el("div", {}, line)));

function draw(made) {
  if (!made.instance) made.instance = echarts.init(made.box, null, { renderer: "canvas" });
  made.instance.setOption(made.options(), { notMerge: true });
}

// A chart is made when it is about to be seen, so that the page answers at once however many layers there are.
function start() {
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((e) => e.isIntersecting)) {
      seen.unobserve(entry.target);
      draw(CHARTS.find((made) => made.box === entry.target));
    }
    if (!document.documentElement.dataset.ready) performance.mark("ready");
    document.documentElement.dataset.ready = "yes";
  }, { rootMargin: "100px" });
  CHARTS.forEach((made) => seen.observe(made.box));
  addEventListener("beforeprint", () => CHARTS.filter((made) => !made.instance).forEach(draw));
  const resized = new ResizeObserver((entries) => CHARTS.forEach(({ box, instance }) => {
    if (instance && entries.some((entry) => entry.target === box) && instance.getWidth() !== box.clientWidth) instance.resize();
  }));
  CHARTS.forEach((made) => resized.observe(made.box));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

function redraw() {
  CHARTS.forEach((made) => made.instance && made.instance.setOption(made.options(), { notMerge: true }));
}
