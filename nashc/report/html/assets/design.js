"use strict";
// The page of one design.

const S = DATA.summary, LAYERS = DATA.layers, CHUNKS = DATA.chunks;
const GOPS_PER_OP_CYCLE = (2 * S.clock_mhz) / 1e3;
const ms = (cycles) => cycles / S.clock_mhz / 1e3;
const chunkName = (index) => (index < 0 ? "host" : CHUNKS[index].name);
const dramBits = (layer) => layer.dram[0] + layer.dram[1];
const achieved = (layer) => (layer.ops / layer.cycles) * GOPS_PER_OP_CYCLE;
const intensity = (layer) => (2 * layer.ops) / (dramBits(layer) / 8); // operations a byte

// ------------------------------------------------------------------------------------------------- summary

function summary() {
  const checked = DATA.accuracy;
  const tiles = [
    tile(figure(S.fps), "frames a second"), tile(`${figure(S.latency_ms)} ms`, `latency of one batch alone; ${figure(S.pipeline_ms)} ms in the full pipeline`),
    tile(figure(S.gops), "GOPS"), tile(`${figure(S.mj_image)} mJ`, `an image; ${figure(S.watt)} W`),
    tile(S.batch, S.batch > 1 ? "images a batch" : "image a batch"), tile(percent(S.dram_share, 0), "of the DRAM bandwidth"),
    tile(S.optimal ? "proven" : S.gap === null ? "no bound" : percent(S.gap), S.optimal ? "optimal in the space" : "gap to the proven bound"),
    ...(checked ? checked.tiles.map(([value, label]) => tile(value, label)) : []),
  ];
  const host = DATA.host.length ? el("div", { class: "warning", role: "alert" },
    el("b", {}, `${DATA.host.length} of ${LAYERS.length} layers run on the host CPU, not on the accelerator. `),
    "Their time is a rough guess and their energy is not counted: ", DATA.host.slice(0, 8).join(", "), DATA.host.length > 8 ? ", ..." : "") : null;
  return section("summary", "Summary", el("div", { class: "tiles" }, tiles), host,
    el("h3", {}, "What limits it"), el("p", {}, DATA.limits.join(" ")),
    el("p", { class: "dim" }, DATA.certificate));
}

// ----------------------------------------------------------------------------------------------- resources

function resources() {
  const R = DATA.resources, names = { lut: "LUT", ff: "FF", dsp: "DSP", bram36: "BRAM36", uram: "URAM" };
  const used = R.counts.map((_, n) => n).filter((n) => R.usable[n] > 0);
  const options = () => {
    const { axis } = base();
    return common({
      grid: { left: 70, right: 24, top: 34, bottom: 34 },
      tooltip: { ...common({}).tooltip, trigger: "item", formatter: (p) => tip(p.seriesName, `${figure(R.parts[p.seriesIndex][1 + used[p.dataIndex]])} ${names[R.counts[used[p.dataIndex]]]}: ${percent(p.value / 100)} of what may be used`) },
      xAxis: { type: "value", max: (v) => Math.max(100, v.max), ...axis, axisLabel: { ...axis.axisLabel, formatter: "{value} %" } },
      yAxis: { type: "category", inverse: true, data: used.map((n) => names[R.counts[n]]), ...axis },
      series: R.parts.map((part, n) => ({ name: part[0], type: "bar", stack: "all", barMaxWidth: 26,
        itemStyle: { color: n < CHUNKS.length ? unitColourOf(n) : css("--dim") },
        data: used.map((k) => (100 * part[1 + k]) / R.usable[k]) })),
    });
  };
  const rows = R.parts.map((part) => [part[0], ...part.slice(1).map(figure)]);
  rows.push(["used", ...R.used.map(figure)], ["may be used", ...R.usable.map(figure)],
    ["used / may be used", ...R.used.map((u, n) => (R.usable[n] ? percent(u / R.usable[n]) : "-"))], ["board", ...R.board.map(figure)]);
  const chunks = CHUNKS.map((c) => [c.name, `${whole(c.lanes)} ${c.kind}`, c.unroll, c.weight_bits || "-",
    c.buffers.filter((b) => b.kib).map((b) => `${b.what} ${figure(b.kib)} (${b.in})`).join(", ") || "-",
    `${c.dram_bits} (${percent(c.dram_bits / S.dram_bits_cycle, 0)})`, c.layers, `${whole(c.busy)} (${percent(c.busy / S.interval_cycles)})`]);
  return section("resources", "Board and accelerator", chart("Resources of each chunk as a share of what may be used", options, { low: true }),
    table(["", ...R.counts.map((name) => `>${names[name]}`)], rows, "Resources"),
    table(["chunk", ">lanes", "unrolling", ">weight bits", "half buffers, KiB", ">DRAM bits a cycle", ">layers", ">busy cycles"], chunks, "Chunks"));
}

// Chunks of one unit share its colour family: the second one is paler.
function unitColourOf(index) {
  if (index < 0) return unitColour("host");
  const twin = CHUNKS.slice(0, index).filter((c) => c.unit === CHUNKS[index].unit).length;
  return twin ? echarts.color.modifyAlpha(unitColour(CHUNKS[index].unit), 0.6) : unitColour(CHUNKS[index].unit);
}

// ------------------------------------------------------------------------------------------------ roofline

function roofline() {
  const on = LAYERS.map((layer, n) => [layer, n]).filter(([layer]) => layer.chunk >= 0 && layer.ops > 0);
  const finite = on.filter(([layer]) => dramBits(layer) > 0).map(([layer]) => intensity(layer));
  const low = Math.min(...finite, 1) / 2, high = Math.max(...finite, 1) * 4, nothing = high * 2;
  const peak = (c) => c.lanes * GOPS_PER_OP_CYCLE, slope = (c) => (c.dram_bits / 8) * (S.clock_mhz / 1e3); // GOPS at one operation a byte
  const where = (layer) => [dramBits(layer) > 0 ? intensity(layer) : nothing, achieved(layer)];
  const least = Math.min(...on.map(([layer]) => achieved(layer)), ...CHUNKS.map(peak)) / 2;
  const options = () => {
    const { axis } = base();
    const series = CHUNKS.flatMap((c, index) => {
      const knee = peak(c) / slope(c), start = Math.max(low, least / slope(c));
      const roof = [[start, Math.min(peak(c), start * slope(c))], ...(knee > start ? [[knee, peak(c)]] : []), [nothing * 2, peak(c)]];
      const own = on.filter(([layer]) => layer.chunk === index);
      return [
        { name: c.name, type: "line", data: roof, symbol: "none", silent: true, lineStyle: { color: unitColourOf(index), type: index % 2 ? "dashed" : "solid" }, itemStyle: { color: unitColourOf(index) } },
        { name: c.name, id: `points${index}`, type: "scatter", symbolSize: 9, itemStyle: { color: unitColourOf(index), opacity: 0.75 },
          data: own.map(([layer, n]) => ({ value: where(layer), layer: n })) },
      ];
    });
    return common({
      grid: { left: 70, right: 24, top: 40, bottom: 50 },
      tooltip: { ...common({}).tooltip, trigger: "item", formatter: (p) => (p.data.layer === undefined ? tip(p.seriesName) : layerTip(p.data.layer)) },
      xAxis: { type: "log", min: low, max: nothing * 2, name: "operations a byte of DRAM traffic", nameLocation: "middle", nameGap: 28, ...axis,
        axisLabel: { ...axis.axisLabel, formatter: (v) => (v > high ? "" : figure(v)) } },
      yAxis: { type: "log", min: least, name: "GOPS while it runs", ...axis, axisLabel: { ...axis.axisLabel, formatter: figure } },
      dataZoom: [{ type: "inside", filterMode: "none" }, { type: "inside", yAxisIndex: 0, filterMode: "none" }],
      series: [...series, { type: "scatter", data: [], silent: true, markArea: { silent: true, itemStyle: { color: css("--line"), opacity: 0.35 },
        label: { color: css("--dim"), position: "insideBottom" }, data: [[{ name: "no DRAM", xAxis: high }, { xAxis: nothing * 2 }]] } }],
    });
  };
  const keys = { count: on.length, open: (n) => details(on[n][1]), show: (n, instance) => {
    const [layer, index] = on[n];
    const own = on.filter(([other]) => other.chunk === layer.chunk).findIndex(([, other]) => other === index);
    instance.dispatchAction({ type: "showTip", seriesIndex: 2 * layer.chunk + 1, dataIndex: own });
    return `${layer.name}: ${figure(achieved(layer))} GOPS on ${chunkName(layer.chunk)}`;
  } };
  return section("roofline", "Roofline",
    el("p", { class: "dim" }, "Each layer at the speed it reaches while it runs, below the roof of its chunk: lanes times clock on the right, the chunk's share of the DRAM bandwidth on the left. An operation is half a MAC-equivalent; a shift layer of T terms does T a weight."),
    chart("Roofline of every layer", options, { keys }));
}

function layerTip(index) {
  const layer = LAYERS[index];
  return tip(`${index}  ${layer.name}`, `${layer.op} on ${chunkName(layer.chunk)}, ${layer.nest}`,
    `${whole(layer.cycles)} cycles (${percent(layer.cycles / S.interval_cycles)} of the interval), waits for ${layer.bound}`,
    layer.chunk >= 0 ? `lanes used ${percent(layer.util)}; DRAM ${kib(dramBits(layer))} KiB a batch` : layer.note);
}

// ------------------------------------------------------------------------------------------------ timeline

const ROWS = [...CHUNKS.map((c) => c.name), ...(LAYERS.some((layer) => layer.chunk < 0) ? ["host"] : [])];
const FIRST = Math.min(...LAYERS.map((layer) => layer.start));
const LAST = Math.max(...LAYERS.map((layer) => layer.start + layer.cycles));
const MOST_BOXES = 4000, MOST = 50000; // a layer longer than the interval, which no search writes, would never end
const INTERVALS = Math.max(2, Math.min(Math.ceil((LAST - FIRST) / S.interval_cycles) + 1, Math.floor(MOST_BOXES / LAYERS.length)));
const END = Math.min(LAST + S.interval_cycles, FIRST + INTERVALS * S.interval_cycles);

// Boxes of the steady state from the start of batch 0 on, of every batch that is in flight then.
function boxes() {
  const found = [];
  LAYERS.forEach((layer, index) => {
    const first = Math.floor((FIRST - layer.start - layer.cycles) / S.interval_cycles) + 1;
    for (let batch = first, from = layer.start + first * S.interval_cycles; from < END && found.length < MOST; batch += 1, from += S.interval_cycles) {
      found.push([layer.chunk < 0 ? CHUNKS.length : layer.chunk, from, from + layer.cycles, index, batch]);
    }
  });
  return found.sort((a, b) => Number(a[4] === 0 || a[4] === 1) - Number(b[4] === 0 || b[4] === 1));
}

// Mean bits a cycle that the layers of one period move, as steps over the period.
function traffic() {
  const change = new Map();
  const add = (time, value) => change.set(time, (change.get(time) || 0) + value);
  const interval = S.interval_cycles;
  for (const layer of LAYERS) {
    const rate = dramBits(layer) / layer.cycles;
    if (!rate) continue;
    const begin = ((layer.start % interval) + interval) % interval, end = begin + layer.cycles;
    add(begin, rate);
    add(Math.min(end, interval), -rate);
    if (end > interval) { add(0, rate); add(end - interval, -rate); }
  }
  let now = 0;
  const steps = [...change.keys()].sort((a, b) => a - b).map((time) => { now += change.get(time); return [time, Math.max(0, now)]; });
  if (!steps.length || steps[0][0] > 0) steps.unshift([0, 0]);
  return steps.filter(([time]) => time < interval);
}

// What the timeline draws, computed when it is first seen: boxes, steps of the traffic in the window, a box a layer.
const drawn = once(() => {
  const all = boxes(), steps = traffic(), wave = [];
  for (let batch = Math.floor(FIRST / S.interval_cycles); batch * S.interval_cycles < END; batch += 1) {
    for (const [time, value] of steps) wave.push([batch * S.interval_cycles + time, value]);
  }
  const inside = wave.filter(([time]) => time >= FIRST && time <= END);
  const before = wave.filter(([time]) => time < FIRST).pop();
  if (before) inside.unshift([FIRST, before[1]]);
  inside.push([END, inside.length ? inside[inside.length - 1][1] : 0]);
  const own = new Map();
  all.forEach((box, n) => { if (!own.has(box[3]) || box[4] === 0) own.set(box[3], n); });
  return { all, inside, own };
});

function timeline() {
  const end = END;
  const shown = { startValue: FIRST, endValue: Math.min(END, INTERVALS > 6 ? FIRST + 2 * S.interval_cycles : END) };
  const gbs = (bits) => (bits / 8) * S.clock_mhz * 1e6 / 1e9;
  const options = () => {
    const { axis } = base(), edge = css("--back"), { all, inside } = drawn();
    const item = (params, api) => {
      const row = api.value(0), from = api.coord([api.value(1), row]), to = api.coord([api.value(2), row]);
      const height = api.size([0, 1])[1] * 0.7, batch = api.value(4), own = batch === 0 || batch === 1;
      const shape = echarts.graphic.clipRectByRect({ x: from[0], y: from[1] - height / 2, width: Math.max(1, to[0] - from[0]), height },
        { x: params.coordSys.x, y: params.coordSys.y, width: params.coordSys.width, height: params.coordSys.height });
      const fill = unitColourOf(row < CHUNKS.length ? row : -1);
      return shape && { type: "rect", shape, style: { fill, opacity: own ? (batch === 0 ? 1 : 0.6) : 0.18, stroke: edge, lineWidth: shape.width > 4 ? 1 : 0 } };
    };
    return common({
      grid: [{ left: 110, right: 24, top: 16, height: 44 * ROWS.length }, { left: 110, right: 24, top: 64 + 44 * ROWS.length, height: 90 }],
      tooltip: { ...common({}).tooltip, trigger: "item", formatter: (p) => {
        if (p.seriesIndex === 1) return tip(`${figure(gbs(p.value[1]))} GB/s`, `at ${figure(ms(p.value[0]))} ms`);
        const made = layerTip(p.value[3]);
        made.append(el("div", {}, `batch ${p.value[4]}: ${figure(ms(p.value[1]))} to ${figure(ms(p.value[2]))} ms`));
        return made;
      } },
      xAxis: [0, 1].map((n) => ({ type: "value", gridIndex: n, min: FIRST, max: end, ...axis, name: n ? "ms" : "", axisLabel: { ...axis.axisLabel, formatter: (v) => figure(ms(v)) } })),
      yAxis: [{ type: "category", inverse: true, data: ROWS, ...axis }, { type: "value", gridIndex: 1, name: "DRAM GB/s", max: (v) => Math.max(v.max, S.dram_bits_cycle), ...axis, axisLabel: { ...axis.axisLabel, formatter: (v) => figure(gbs(v)) } }],
      dataZoom: [{ type: "inside", xAxisIndex: [0, 1], filterMode: "weakFilter", ...shown }, { type: "slider", xAxisIndex: [0, 1], filterMode: "weakFilter", ...shown, bottom: 6, height: 22, labelFormatter: (v) => `${figure(ms(v))} ms` }],
      legend: { show: false },
      series: [
        { type: "custom", renderItem: item, data: all, encode: { x: [1, 2], y: 0 }, progressive: 0,
          markLine: { silent: true, symbol: "none", lineStyle: { color: css("--dim"), type: "dashed" }, label: { color: css("--dim"), formatter: "interval", position: "start", distance: 2 },
            data: [{ xAxis: Math.min(FIRST + S.interval_cycles, end) }] } },
        { type: "line", xAxisIndex: 1, yAxisIndex: 1, step: "end", symbol: "none", data: inside, lineStyle: { width: 1, color: css("--accent") }, areaStyle: { color: css("--accent"), opacity: 0.25 },
          markLine: { silent: true, symbol: "none", lineStyle: { color: css("--bad") }, label: { color: css("--bad"), position: "insideEndTop", formatter: "long bursts reach" }, data: [{ yAxis: S.dram_bits_cycle }] } },
      ],
    });
  };
  const order = LAYERS.map((_, n) => n).sort((a, b) => LAYERS[a].start - LAYERS[b].start);
  const keys = { count: order.length, open: (n) => details(order[n]), show: (n, instance) => {
    const { all, own } = drawn();
    const index = own.get(order[n]), [, from, to, , batch] = all[index], layer = LAYERS[order[n]];
    const { startValue, endValue } = instance.getOption().dataZoom[0];
    if (from < startValue || to > endValue) {
      const half = Math.max(endValue - startValue, to - from) / 2, middle = Math.min(Math.max((from + to) / 2, FIRST + half), END - half);
      instance.dispatchAction({ type: "dataZoom", startValue: middle - half, endValue: middle + half });
    }
    instance.dispatchAction({ type: "showTip", seriesIndex: 0, dataIndex: index });
    return `${layer.name} on ${chunkName(layer.chunk)}: ${figure(ms(from))} to ${figure(ms(to))} ms, batch ${batch}`;
  } };
  const made = chart("Timeline of the periodic schedule", options, { keys });
  made.firstChild.style.height = `${64 + 44 * ROWS.length + 90 + 70}px`;
  return section("timeline", "Timeline",
    el("p", { class: "dim" }, `Each chunk works on another batch; one leaves every ${whole(S.interval_cycles)} cycles (${figure(ms(S.interval_cycles))} ms). Batch 0 is in full colour, batch 1 lighter, those before and after them pale; a batch is in the pipeline for ${figure(S.pipeline_ms)} ms. Below: DRAM traffic, spread evenly over each layer's time. Wheel or slider zoom.${END < LAST + S.interval_cycles ? ` What follows repeats: ${INTERVALS} intervals are drawn.` : ""}`),
    made);
}

// -------------------------------------------------------------------------------------------------- layers

const panel = el("div", { class: "details", hidden: true, tabindex: "-1", "aria-live": "polite" });
let layers = null;

function layerTable() {
  const rows = LAYERS.map((layer, index) => ({ ...layer, index }));
  layers = browser({
    rows, label: "layers", open: details,
    filters: [{ title: "chunk", of: (row) => chunkName(row.chunk) }, { title: "bound by", of: (row) => row.bound }, { title: "operator", of: (row) => row.op }],
    columns: [
      { title: "layer", of: (row) => row.index, show: (row) => `${row.index}  ${row.name}` },
      { title: "operator", of: (row) => row.op, show: (row) => row.op },
      { title: "chunk", of: (row) => chunkName(row.chunk), show: (row) => chunkName(row.chunk) },
      { title: "loop nest", of: (row) => row.ops, show: (row) => row.nest, minor: true },
      { title: "cycles", number: true, of: (row) => row.cycles, show: (row) => whole(row.cycles) },
      { title: "of interval", number: true, of: (row) => row.cycles, show: (row) => percent(row.cycles / S.interval_cycles) },
      { title: "bound by", of: (row) => row.bound, show: (row) => row.bound },
      { title: "lanes used", number: true, of: (row) => row.util, show: (row) => (row.chunk < 0 ? "-" : percent(row.util)) },
      { title: "DRAM KiB", number: true, minor: true, of: dramBits, show: (row) => kib(dramBits(row)) },
      { title: "GOPS, all terms", number: true, minor: true, of: achieved, show: (row) => figure(achieved(row)) },
    ],
  });
  return section("layers", "Layers", el("p", { class: "dim" }, "Cycles are those of one batch. A layer's name opens its mapping."), layers.element, panel);
}

// The mapping of a layer as a loop nest, with its traffic and what bounds it.
function details(index) {
  const layer = LAYERS[index];
  layers.select(index);
  const parts = [el("h3", {}, `${index}  ${layer.name}`), el("p", { class: "dim" }, `${layer.op}, ${layer.nest}${layer.activation ? `, ${layer.activation}` : ""}; nodes: ${layer.nodes.join(", ")}${layer.more_nodes ? ` and ${layer.more_nodes} more` : ""}`)];
  if (layer.note) parts.push(el("p", {}, layer.note));
  if (layer.chunk < 0) {
    parts.push(el("p", { class: "warning" }, "No unit of the accelerator runs it: it is on the host CPU."));
  } else {
    const chunk = CHUNKS[layer.chunk];
    const waits = [["array takes operands", layer.compute], [`DRAM, ${chunk.dram_bits} bits a cycle, without bursts`, layer.bus], ["on-chip memory, its busier direction", layer.port]];
    const weights = layer.weights ? `${whole(layer.weights[2])} weights of ${layer.weights[0]} bits${layer.weights[1] > 1 ? ` in ${layer.weights[1]} terms` : ""}` : "no weights";
    parts.push(
      el("p", {}, `On ${chunk.name} (${whole(chunk.lanes)} ${chunk.kind} lanes), ${weights}. ${whole(layer.cycles)} cycles a batch, bound by ${layer.bound}; lanes used ${percent(layer.util)}.`),
      el("pre", { tabindex: "0", "aria-label": "loop nest" }, `${layer.flow}\n${layer.text}`),
      table(["operand", "tensor", "where", ">KiB a batch", ">times each"], layer.operands.map(([what, name, place, bits, times]) => [what, name, place, kib(bits), whole(times)]), "What it moves"),
      table(["at least busy for", ">cycles", ">of its time", ""], waits.map(([what, cycles]) => [what, whole(cycles), percent(cycles / layer.cycles),
        el("span", { class: "bar", style: `width:${Math.min(100, (100 * cycles) / layer.cycles).toFixed(1)}px` })]), "What bounds it"),
      el("p", { class: "dim" }, "The rest of its time goes to loads and stores that nothing hides, filling the array, bursts and steps."));
  }
  panel.replaceChildren(...parts);
  panel.hidden = false;
  panel.scrollIntoView({ block: "nearest" });
  panel.focus({ preventScroll: true });
}

// ---------------------------------------------------------------------------------------------- the others

function memory() {
  const M = DATA.memory, batch = S.batch;
  const part = (urams) => (M.urams[0] ? [urams] : []); // a column of boards with URAM
  const rows = [...M.resident.map(([name, bits, copies, urams]) => ["feature map", name, kib(bits), copies, kib(bits * copies), ...part(urams)]),
    ...M.pinned.map(([name, bits]) => ["weights of", name, kib(bits), 1, kib(bits), ...part("")])];
  return section("memory", "Memory plan", el("p", {}, `${M.peak} of ${M.banks} BRAM36 banks are in use at the peak${M.urams[0] ? `, and ${M.urams[0]} URAM, ${M.urams[1]} of them for feature maps` : ""}. Sizes are of a batch of ${batch}.`),
    rows.length ? table(["on chip", "name", ">KiB a copy", ">copies", ">KiB", ...part(">URAM a copy")], rows, "On chip") : el("p", {}, "Nothing stays on chip."),
    M.spilled.length ? table(["name", ">KiB a batch", ">DRAM KiB a batch, at least"], M.spilled.map(([name, bits, moved]) => [name, kib(bits), kib(moved)]), "Feature maps in DRAM") : null);
}

function comparison() {
  const C = DATA.comparison, own = C[0];
  if (C.length < 2 && !DATA.missing.length) return null;
  const options = () => {
    const { axis } = base();
    return common({ legend: { show: false }, grid: { left: 130, right: 60, top: 8, bottom: 30 },
      xAxis: { type: "value", ...axis, axisLabel: { ...axis.axisLabel, formatter: figure } }, yAxis: { type: "category", inverse: true, data: C.map((c) => c.name), ...axis },
      tooltip: { ...common({}).tooltip, formatter: (p) => tip(C[p.dataIndex].name, `${figure(p.value)} FPS`) },
      series: [{ type: "bar", barMaxWidth: 26, data: C.map((c, n) => ({ value: c.fps, itemStyle: { color: n ? css("--dim") : css("--accent") } })),
        label: { show: true, position: "right", color: css("--text"), formatter: (p) => figure(p.value) } }] });
  };
  const rows = C.map((c) => [c.name, c.batch, figure(c.fps), ratio(own.fps, c.fps), figure(c.latency_ms), figure(c.mj_image), ratio(c.mj_image, own.mj_image), ...[0, 2, 3].map((n) => figure(c.used[n]))]);
  return section("comparison", "Comparison", el("p", { class: "dim" }, "Gain: how much better this design is than the row."),
    chart("FPS of this design and of the others", options, { low: true }),
    table(["design", ">batch", ">FPS", ">gain", ">latency ms", ">mJ an image", ">gain", ">LUT", ">DSP", ">BRAM36"], rows, "Designs"),
    DATA.missing.map(([name, why]) => el("p", {}, `${name}: ${why}`)));
}

function helps() {
  const H = DATA.helps;
  if (!H) return null;
  const rows = H.rows.map((row) => [row.what, row.from, row.to, row.fps === null ? row.why : figure(row.fps), row.gain === null ? "-" : `${row.gain >= 0 ? "+" : ""}${percent(row.gain)}`, row.gap === null ? "-" : percent(row.gap)]);
  return section("helps", "What would help next", el("p", { class: "dim" }, H.text), table(["one tenth more of", ">now", ">then", ">FPS", ">gain", ">gap to its bound"], rows, "What would help"));
}

function about() {
  const options = Object.entries(DATA.options).filter(([, value]) => value !== null).map(([name, value]) => [name, String(value)]);
  return section("about", "Request and board",
    table(["option", "value"], options, "What was asked for"),
    DATA.removed.length ? later(`${DATA.removed.length} nodes of the file became no layer`, () => table(["node", "why"], DATA.removed)) : null,
    later("Every figure of the board, and where it comes from", () => table(["figure", ">value", "source"], DATA.sources)),
    el("p", { class: "dim" }, "Speed, resources and energy are estimates of a modelled template; nothing was measured on a board."));
}

assemble(`${DATA.name} on ${DATA.board.name}`, DATA.board.part,
  [summary(), resources(), roofline(), timeline(), layerTable(), memory(), comparison(), helps(), about()].filter(Boolean));
start();
