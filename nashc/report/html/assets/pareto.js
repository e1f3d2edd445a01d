"use strict";
// The page of a Pareto set: of a search, or of a conversion.

const POINTS = DATA.points, CHOSEN = DATA.chosen;
const axisOf = (value) => (DATA.x === "score" ? value.toFixed(2) : figure(value));

function front() {
  const logarithmic = DATA.groups.length > 1;
  const options = () => {
    const { axis } = base();
    const colours = DATA.groups.length > 1 ? [css("--dim"), css("--accent")] : [css("--accent")];
    const series = DATA.groups.flatMap((name, group) => {
      const own = POINTS.map((point, n) => [point, n]).filter(([point]) => point.group === group);
      const best = own.filter(([point]) => point.front).sort((a, b) => a[0].x - b[0].x);
      return [
        { name, type: "scatter", symbolSize: 7, itemStyle: { color: colours[group], opacity: 0.45 }, data: own.map(([p, n]) => ({ value: [p.x, p.y], point: n })) },
        { name, id: `front${group}`, type: "line", symbol: "circle", symbolSize: 8, itemStyle: { color: colours[group] }, lineStyle: { color: colours[group] }, data: best.map(([p, n]) => ({ value: [p.x, p.y], point: n })) },
      ];
    });
    const lines = DATA.lines.map(([name, fps]) => ({ yAxis: fps, label: { formatter: name, color: css("--dim"), position: "insideEndTop" } }));
    series.push({ name: "designs", type: "scatter", symbol: "diamond", symbolSize: 15, itemStyle: { color: css("--bad") },
      data: CHOSEN.map((c, n) => ({ value: [c.x, c.y], chosen: n })),
      markLine: { silent: true, symbol: "none", lineStyle: { color: css("--dim"), type: "dashed" }, data: lines } });
    return common({
      grid: { left: 70, right: 24, top: 40, bottom: 50 },
      tooltip: { ...common({}).tooltip, trigger: "item", formatter: (p) => {
        const point = p.data.chosen === undefined ? POINTS[p.data.point] : CHOSEN[p.data.chosen];
        return tip(point.name, point.about, `${DATA.x}: ${axisOf(point.x)}`, `${figure(point.y)} FPS`);
      } },
      xAxis: { type: "value", scale: true, name: DATA.x, nameLocation: "middle", nameGap: 28, ...axis },
      yAxis: { type: logarithmic ? "log" : "value", name: DATA.y, ...(logarithmic ? {} : { min: 0, max: (v) => Math.max(v.max, ...DATA.lines.map((l) => l[1])) }), nameLocation: "middle", nameGap: 56, ...axis, axisLine: { onZero: false }, axisLabel: { ...axis.axisLabel, formatter: figure } },
      dataZoom: [{ type: "inside", filterMode: "none" }, { type: "inside", yAxisIndex: 0, filterMode: "none" }],
      series,
    });
  };
  const keys = { count: CHOSEN.length, show: (n, instance) => {
    instance.dispatchAction({ type: "showTip", seriesIndex: 2 * DATA.groups.length, dataIndex: n });
    return `${CHOSEN[n].name}: ${figure(CHOSEN[n].y)} FPS, ${DATA.x} ${axisOf(CHOSEN[n].x)}`;
  }, open: (n) => { if (CHOSEN[n].link) location.href = CHOSEN[n].link; } };
  return section("front", "Pareto set", el("p", { class: "dim" }, DATA.text), chart(`${DATA.y} over ${DATA.x}`, options, CHOSEN.length ? { keys } : {}));
}

function chosen() {
  const total = (macs) => Object.values(macs).reduce((a, b) => a + b, 0);
  const rows = CHOSEN.map((c) => [
    c.link ? el("a", { href: c.link }, c.name) : c.name, c.about, axisOf(c.x), c.macs ? figure(total(c.macs) / 1e6) : "-",
    c.macs ? ["conv", "shift", "adder"].map((unit) => percent((c.macs[unit] || 0) / total(c.macs), 0)).join(" / ") : "-",
    figure(c.y), c.gap === null ? "-" : percent(c.gap, 0), c.rival ? `${(c.y / c.rival.fps).toFixed(2)}x ${c.rival.name}${c.rival.less ? ", which scores less" : ""}` : "-",
    figure(c.dsp_fps), c.accuracy === null ? "-" : percent(c.accuracy, 2)]);
  return section("designs", "Designs",
    table(["design", "what it is", `>${DATA.x}`, ">MMACs", "conv / shift / adder", ">FPS", ">gap", "beside its rival", ">FPS on DSPs alone", ">accuracy"], rows, "Chosen"),
    el("p", { class: "dim" }, "The gap is how much faster a design may be that the search did not find. Accuracy is that of the integer model. A rival is the fastest network of convolutions alone of the same search that scores at least as much."));
}

function candidates() {
  const rows = POINTS.map((point) => ({ ...point }));
  const made = browser({ rows, label: "candidates", first: null,
    filters: [{ title: "kind", of: (row) => DATA.groups[row.group] }, { title: "front", of: (row) => (row.front ? "yes" : "no") }],
    columns: [
      { title: "candidate", of: (row) => row.name, show: (row) => row.name },
      { title: "what it is", of: (row) => row.about, show: (row) => row.about },
      { title: DATA.x, number: true, of: (row) => row.x, show: (row) => axisOf(row.x) },
      { title: "FPS", number: true, of: (row) => row.y, show: (row) => figure(row.y) },
    ] });
  return section("candidates", "Candidates", made.element);
}

assemble(DATA.name, `${POINTS.length} candidates`, [front(), CHOSEN.length ? chosen() : null, candidates()].filter(Boolean));
start();
