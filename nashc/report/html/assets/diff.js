"use strict";
// The page of two designs side by side.

const [A, B] = DATA.designs, [NAME_A, NAME_B] = DATA.names;
const SIDES = [NAME_A, NAME_B];
const perImage = (side) => (side ? side.us : 0); // microseconds
const delta = (a, b) => (a > 0 && b !== a ? `${b > a ? "+" : ""}${(100 * (b / a - 1)).toFixed(1)} %` : "");
const gapText = (s) => (s.optimal ? "proven optimal" : s.gap === null ? "no bound" : percent(s.gap, 2));

function summary() {
  const a = A.summary, b = B.summary;
  const numbers = [["frames a second", "fps"], ["latency of one batch, ms", "latency_ms"], ["latency in the full pipeline, ms", "pipeline_ms"], ["GOPS", "gops"], ["mJ an image", "mj_image"], ["watt", "watt"],
    ["images a batch", "batch"], ["interval, cycles", "interval_cycles"], ["clock, MHz", "clock_mhz"], ["DRAM KiB an image", "dram_kib_image"],
    ["MAC-equivalents an image", "macs"], ["layers on the host", "host_layers"]];
  const rows = [["network", A.network, B.network, ""], ["board", A.board, B.board, ""],
    ...numbers.map(([title, key]) => [title, figure(a[key]), figure(b[key]), delta(a[key], b[key])]),
    ["DRAM bandwidth used", percent(a.dram_share, 0), percent(b.dram_share, 0), ""], ["gap to the proven bound", gapText(a), gapText(b), ""]];
  return section("summary", "Summary", el("div", { class: "tiles" }, tile(ratio(b.fps, a.fps), `the FPS of ${NAME_A}`), tile(ratio(b.latency_ms, a.latency_ms), "its latency"), tile(ratio(b.mj_image, a.mj_image), "its energy an image")),
    table(["", `>${NAME_A}`, `>${NAME_B}`, ">change"], rows, "Both designs"),
    [A, B].map((side, n) => [el("h3", {}, `What limits ${SIDES[n]}`), el("p", {}, side.limits.join(" ")), el("p", { class: "dim" }, side.certificate)]));
}

function resources() {
  const names = { lut: "LUT", ff: "FF", dsp: "DSP", bram36: "BRAM36", uram: "URAM" };
  const counts = A.resources.counts;
  const options = () => {
    const { axis } = base();
    return common({ grid: { left: 70, right: 24, top: 34, bottom: 34 },
      xAxis: { type: "value", ...axis, axisLabel: { ...axis.axisLabel, formatter: "{value} %" } }, yAxis: { type: "category", inverse: true, data: counts.map((c) => names[c]), ...axis },
      tooltip: { ...common({}).tooltip, formatter: (p) => tip(SIDES[p.seriesIndex], `${figure([A, B][p.seriesIndex].resources.used[p.dataIndex])} ${names[counts[p.dataIndex]]}: ${percent(p.value / 100)} of what may be used`) },
      series: [A, B].map((side, n) => ({ name: n ? "second" : "first", type: "bar", itemStyle: { color: seriesColour(n) },
        data: side.resources.used.map((used, k) => (side.resources.usable[k] ? (100 * used) / side.resources.usable[k] : 0)) })) });
  };
  const rows = counts.map((count, n) => [names[count], figure(A.resources.used[n]), figure(B.resources.used[n]), delta(A.resources.used[n], B.resources.used[n])]);
  const chunks = [A, B].map((side, n) => table(["chunk", ">lanes", "unrolling", ">DRAM bits a cycle", ">layers", ">busy"],
    side.chunks.map((c) => [c.name, `${whole(c.lanes)} ${c.kind}`, c.unroll, c.dram_bits, c.layers, percent(c.busy / side.summary.interval_cycles)]), `Chunks of ${SIDES[n]}`));
  return section("resources", "Accelerators", chart("Resources of both designs", options, { low: true }),
    table(["", `>${NAME_A}`, `>${NAME_B}`, ">change"], rows, "Resources"), chunks);
}

function layers() {
  const rows = DATA.layers.map((layer, index) => ({ ...layer, index, change: perImage(layer.sides[1]) - perImage(layer.sides[0]) }));
  const side = (row, n, show) => (row.sides[n] ? show(row.sides[n]) : "-");
  const top = [...rows].sort((x, y) => Math.abs(y.change) - Math.abs(x.change)).slice(0, 15).filter((row) => row.change);
  const options = () => {
    const { axis } = base();
    return common({ legend: { show: false }, grid: { left: 150, right: 40, top: 8, bottom: 40 },
      xAxis: { type: "value", name: "microseconds an image more", nameLocation: "middle", nameGap: 26, ...axis, axisLabel: { ...axis.axisLabel, formatter: figure } },
      yAxis: { type: "category", inverse: true, data: top.map((row) => row.name), ...axis, axisLabel: { ...axis.axisLabel, width: 135, overflow: "truncate" } },
      tooltip: { ...common({}).tooltip, formatter: (p) => { const row = top[p.dataIndex]; return tip(row.name, `${figure(perImage(row.sides[0]))} to ${figure(perImage(row.sides[1]))} us an image`); } },
      series: [{ type: "bar", barMaxWidth: 20, data: top.map((row) => ({ value: row.change, itemStyle: { color: row.change > 0 ? css("--bad") : css("--accent") } })) }] });
  };
  const made = browser({ rows, label: "layers",
    filters: [{ title: "in", of: (row) => (row.sides[0] && row.sides[1] ? "both" : row.sides[0] ? "the first alone" : "the second alone") }],
    columns: [
      { title: "layer", of: (row) => row.index, show: (row) => row.name },
      { title: "first: chunk", of: (row) => side(row, 0, (s) => s.chunk), show: (row) => side(row, 0, (s) => s.chunk) },
      { title: "second: chunk", of: (row) => side(row, 1, (s) => s.chunk), show: (row) => side(row, 1, (s) => s.chunk) },
      { title: "first: us an image", number: true, of: (row) => perImage(row.sides[0]), show: (row) => side(row, 0, (s) => figure(perImage(s))) },
      { title: "second: us an image", number: true, of: (row) => perImage(row.sides[1]), show: (row) => side(row, 1, (s) => figure(perImage(s))) },
      { title: "change", number: true, of: (row) => row.change, show: (row) => figure(row.change) },
      { title: "first: bound", minor: true, of: (row) => side(row, 0, (s) => s.bound), show: (row) => side(row, 0, (s) => s.bound) },
      { title: "second: bound", minor: true, of: (row) => side(row, 1, (s) => s.bound), show: (row) => side(row, 1, (s) => s.bound) },
      { title: "first: lanes used", minor: true, number: true, of: (row) => (row.sides[0] || { util: 0 }).util, show: (row) => side(row, 0, (s) => percent(s.util)) },
      { title: "second: lanes used", minor: true, number: true, of: (row) => (row.sides[1] || { util: 0 }).util, show: (row) => side(row, 1, (s) => percent(s.util)) },
    ] });
  return section("layers", "Layers", el("p", { class: "dim" }, "Layers are paired by name."), top.length ? chart("Layers that changed most", options) : null, made.element);
}

assemble(`${NAME_A} beside ${NAME_B}`, `${A.board === B.board ? A.board : `${A.board}, ${B.board}`}`, [summary(), resources(), layers()]);
start();
