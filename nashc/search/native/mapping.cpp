// The mapping search of one layer, compiled: the closed form of nashc/hw/latency.py and its bound in nashc/hw/traffic.py,
// one mapping at a time. Those two files say what is computed and why; this one only says it faster, and
// tests/search/test_compiled.py holds it to them, to the cycle. Plain C interface, no Python, no state.
//
// Names are those of the Python files. All quantities are int64: cycles, bits, elements.

#include <algorithm>
#include <cstdint>
#include <new>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

using i64 = std::int64_t;

namespace {

constexpr int DIMS = 6, MOST_EXTRAS = 8, PORTS = 5;
enum Dim { N, G, K, C, OY, OX };
enum Port { DRAM, READ, WEIGHT, WRITE, POST };
constexpr unsigned INPUT_DIMS = 1 << G | 1 << C | 1 << N | 1 << OY | 1 << OX;
constexpr unsigned WEIGHT_DIMS = 1 << G | 1 << K | 1 << C;
constexpr unsigned OUTPUT_DIMS = 1 << G | 1 << K | 1 << N | 1 << OY | 1 << OX;

i64 ceil_div(i64 a, i64 b) { return (a + b - 1) / b; }
i64 clip(i64 x, i64 low, i64 high) { return std::min(std::max(x, low), high); }

}  // namespace

// One layer, chunk and placement; fields in the order of nashc/search/compiled.py.
struct Problem {
    i64 g, k, c, oy, ox, fy, fx, iy, ix;
    i64 stride[2], dilation[2], pad[4];
    i64 batch, input_bits, output_bits, weight_bits, terms, scattered;
    i64 extras, extra_bits[MOST_EXTRAS], extra_full[MOST_EXTRAS], extra_on_chip[MOST_EXTRAS];
    i64 input_on_chip, output_on_chip, weights_on_chip;
    i64 unroll[7];  // g k c oy ox fy fx
    i64 input_buffer, weight_buffer, output_buffer, dram_bits;
    i64 burst_bits, burst_latency, burst_overhead, bursts_in_flight, port_bits;
    i64 step_overhead, layer_overhead, pipeline_depth, post_lanes;
    i64 channel_block, partial_sum_bits, channel_parameter_bits;
};

struct Flow {
    i64 loops[DIMS];  // outermost first
    i64 fresh;        // bit s: the flow is the first with its order of the moving loops s (1 k, 2 c, 4 pixels)
};

// Declared tile sizes: images x blocks (g, k, c) x rows x columns, numbered in this order.
struct Grid {
    i64 n_images, n_blocks, n_rows, n_columns;
    const i64 *images, *blocks, *rows, *columns;

    void tile(i64 number, i64* sizes) const {
        sizes[OX] = columns[number % n_columns], number /= n_columns;
        sizes[OY] = rows[number % n_rows], number /= n_rows;
        for (int i = 0; i < 3; i++) sizes[G + i] = blocks[3 * (number % n_blocks) + i];
        sizes[N] = images[number / n_blocks];
    }
};

// A tile that fits in the buffers, and the cycles that any order of its loops takes at least, wherever its operands are.
struct Fit {
    i64 floor, number;
};

struct Found {
    i64 tile[DIMS];  // n g k c oy ox
    i64 flow, cycles, exact;
};

namespace {

struct Extent {
    i64 count, first, middle, last;
    i64 total() const { return count == 1 ? first : first + (count - 2) * middle + last; }
    i64 largest() const { return count == 1 ? first : std::max(first, std::max(middle, last)); }
    i64 end() const { return count == 1 ? first : last; }
};

Extent split(i64 bound, i64 tile) {
    const i64 count = ceil_div(bound, tile), full = std::min(tile, bound);
    return {count, full, full, bound - (count - 1) * tile};
}

// Sizes of one tile: the six tile loops and the input window.
struct Sizes {
    i64 d[DIMS], iy, ix;
};

struct Layer {
    const Problem& p;
    i64 taps, drain, depth, outputs_lanes, halo[2], behind[2], whole_burst;

    explicit Layer(const Problem& problem) : p(problem) {
        taps = ceil_div(p.fy, p.unroll[5]) * ceil_div(p.fx, p.unroll[6]) * p.terms;
        const i64 accumulators = p.unroll[0] * p.unroll[1] * p.unroll[3] * p.unroll[4];
        outputs_lanes = std::min(p.post_lanes, accumulators);
        drain = ceil_div(accumulators, outputs_lanes);
        depth = p.pipeline_depth;
        for (i64 lanes = p.unroll[2] * p.unroll[5] * p.unroll[6]; lanes > 1; lanes = (lanes + 1) / 2) depth++;
        const i64 filter[2] = {p.fy, p.fx}, bound[2] = {p.oy, p.ox}, size[2] = {p.iy, p.ix};
        for (int a = 0; a < 2; a++) {
            halo[a] = (filter[a] - 1) * p.dilation[a] + 1;
            behind[a] = std::max<i64>(0, (bound[a] - 1) * p.stride[a] + halo[a] - p.pad[a] - size[a]);
        }
        whole_burst = burst(p.burst_bits);
    }

    i64 burst(i64 bits) const {
        const i64 beats = ceil_div(bits, p.dram_bits);
        return std::max(beats + p.burst_overhead, ceil_div(beats + p.burst_latency, p.bursts_in_flight));
    }

    i64 run_cycles(i64 bits) const {
        if (bits < p.burst_bits) return bits > 0 ? burst(bits) : 0;
        const i64 whole = bits / p.burst_bits, rest = bits - whole * p.burst_bits;
        return whole * whole_burst + (rest > 0 ? burst(rest) : 0);
    }

    Extent window(int axis, const Extent& outputs) const {
        const i64 size = axis ? p.ix : p.iy, stride = p.stride[axis];
        const auto span = [&](i64 outs) { return (outs - 1) * stride + halo[axis]; };
        const i64 first = span(outputs.first) - p.pad[axis] - (outputs.count == 1 ? behind[axis] : 0);
        return {outputs.count, clip(first, 1, size), clip(span(outputs.middle), 1, size),
                clip(span(outputs.last) - behind[axis], 1, size)};
    }

    i64 issue(const Sizes& t) const {
        return t.d[N] * std::max(ceil_div(t.d[C], p.unroll[2]) * taps, drain) * ceil_div(t.d[G], p.unroll[0]) *
               ceil_div(t.d[K], p.unroll[1]) * ceil_div(t.d[OY], p.unroll[3]) * ceil_div(t.d[OX], p.unroll[4]);
    }

    i64 weight_bits(i64 g, i64 k, i64 c) const {
        return g * k * (c * (p.fy * p.fx * p.weight_bits * p.terms) + p.channel_parameter_bits);
    }

    // Cycles of one transfer: `images` times all runs of a region of a map.
    i64 map_transfer(i64 channels, i64 rows, i64 columns, i64 height, i64 width, i64 bits, bool scattered, i64 images,
                     bool on_chip) const {
        const i64 blocks = channels / p.channel_block, rest = channels % p.channel_block, pixels = rows * columns;
        i64 number[2], size[2];
        if (scattered) {
            number[0] = pixels * blocks, size[0] = p.channel_block * bits;
            number[1] = rest > 0 ? pixels : 0, size[1] = rest * bits;
        } else if (columns == width && rows == height) {
            number[0] = 0, size[0] = 0, number[1] = 1, size[1] = pixels * channels * bits;
        } else {
            const i64 lines = columns == width ? 1 : rows, length = (columns == width ? pixels : columns) * bits;
            number[0] = lines * blocks, size[0] = length * p.channel_block;
            number[1] = rest > 0 ? lines : 0, size[1] = length * rest;
        }
        i64 cycles = 0;
        for (int i = 0; i < 2; i++)
            if (number[i]) cycles += number[i] * (on_chip ? ceil_div(size[i], p.port_bits) : run_cycles(size[i]));
        cycles *= images;
        return on_chip || !cycles ? cycles : cycles + p.burst_latency;
    }

    i64 run_transfer(i64 bits, i64 images, bool on_chip) const {
        const i64 cycles = images * (on_chip ? ceil_div(bits, p.port_bits) : run_cycles(bits));
        return on_chip || !cycles ? cycles : cycles + p.burst_latency;
    }

    // `changed`: loops whose index differs from the tile before; begins: the c loop stands at its first tile.
    void load(const Sizes& t, unsigned changed, bool begins, i64* ports) const {
        if (changed & INPUT_DIMS)
            ports[p.input_on_chip ? READ : DRAM] += map_transfer(t.d[G] * t.d[C], t.iy, t.ix, p.iy, p.ix, p.input_bits,
                                                                 false, t.d[N], p.input_on_chip);
        if (p.weight_bits && (changed & WEIGHT_DIMS))
            ports[p.weights_on_chip ? WEIGHT : DRAM] +=
                run_transfer(weight_bits(t.d[G], t.d[K], t.d[C]), 1, p.weights_on_chip);
        if (!(changed & OUTPUT_DIMS)) return;
        const i64 channels = t.d[G] * t.d[K];
        if (!begins) {
            ports[DRAM] += map_transfer(channels, t.d[OY], t.d[OX], p.oy, p.ox, p.partial_sum_bits, p.scattered, t.d[N],
                                        false);
            return;
        }
        for (int e = 0; e < p.extras; e++) {
            const bool on_chip = p.extra_on_chip[e];
            ports[on_chip ? READ : DRAM] +=
                p.extra_full[e] ? map_transfer(channels, t.d[OY], t.d[OX], p.oy, p.ox, p.extra_bits[e], false, t.d[N],
                                               on_chip)
                                : run_transfer(channels * p.extra_bits[e], t.d[N], on_chip);
        }
    }

    // done: the c loop stands at its last tile, so the outputs are complete.
    void store(const Sizes& t, unsigned changed, bool done, i64* ports) const {
        if (!(changed & OUTPUT_DIMS)) return;
        const i64 channels = t.d[G] * t.d[K];
        if (!done) {
            ports[DRAM] += map_transfer(channels, t.d[OY], t.d[OX], p.oy, p.ox, p.partial_sum_bits, p.scattered, t.d[N],
                                        false);
            return;
        }
        ports[p.output_on_chip ? WRITE : DRAM] += map_transfer(channels, t.d[OY], t.d[OX], p.oy, p.ox, p.output_bits,
                                                               p.scattered, t.d[N], p.output_on_chip);
        ports[POST] += ceil_div(t.d[N] * channels * t.d[OY] * t.d[OX], outputs_lanes);
    }

    i64 exposed(const Sizes& first, const Sizes& last) const {
        i64 in[PORTS] = {}, out[PORTS] = {};
        load(first, ~0u, true, in);
        store(last, ~0u, true, out);
        return *std::max_element(in, in + PORTS) + *std::max_element(out, out + PORTS);
    }
};

// A tile of a layer with the extents of its loops and what does not depend on the order of the loops.
struct Tiling {
    Extent e[DIMS], iy, ix;
    Sizes first, last;
    unsigned active = 0;
    i64 steps = 1, compute = 0, edges = -1;

    Tiling(const Layer& layer, const i64* tile) {
        const Problem& p = layer.p;
        const i64 bound[DIMS] = {p.batch, p.g, p.k, p.c, p.oy, p.ox};
        for (int d = 0; d < DIMS; d++) {
            e[d] = split(bound[d], tile[d]);
            active |= (e[d].count > 1) << d;
            steps *= e[d].count;
        }
        iy = layer.window(0, e[OY]), ix = layer.window(1, e[OX]);
    }

    bool fits(const Layer& layer, const i64* tile) const {
        const Problem& p = layer.p;
        const i64 channels = tile[N] * tile[G] * tile[K], outputs = channels * tile[OY] * tile[OX];
        i64 inputs = tile[N] * tile[G] * tile[C] * iy.largest() * ix.largest() * p.input_bits;
        for (int x = 0; x < p.extras; x++) inputs += (p.extra_full[x] ? outputs : channels) * p.extra_bits[x];
        const i64 weights = p.weight_bits ? layer.weight_bits(tile[G], tile[K], tile[C]) : 0;
        return inputs <= p.input_buffer && weights <= p.weight_buffer && outputs * p.partial_sum_bits <= p.output_buffer;
    }

    // Cycles that the array is busy, and with them the least that any order takes.
    i64 floor(const Layer& layer) {
        const i64* lanes = layer.p.unroll;  // of g k c oy ox
        compute = layer.p.batch;
        for (int d = G; d <= OX; d++) {
            i64 full = ceil_div(e[d].first, lanes[d - G]), rest = ceil_div(e[d].last, lanes[d - G]);
            if (d == C) full = std::max(full * layer.taps, layer.drain), rest = std::max(rest * layer.taps, layer.drain);
            compute *= e[d].count == 1 ? full : (e[d].count - 1) * full + rest;
        }
        compute += steps * layer.depth;
        return compute + overhead(layer);
    }

    i64 overhead(const Layer& layer) const { return (steps + 2) * layer.p.step_overhead + layer.p.layer_overhead; }

    void expose(const Layer& layer) {
        for (int d = 0; d < DIMS; d++) first.d[d] = e[d].first, last.d[d] = e[d].end();
        first.iy = iy.first, first.ix = ix.first, last.iy = iy.end(), last.ix = ix.end();
        edges = layer.exposed(first, last);
    }

    int signature() const {
        const bool pixels = active & (1 << N | 1 << OY | 1 << OX);
        return (active >> K & 1) | (active >> C & 1) << 1 | pixels << 2;
    }

    bool spills(const Flow& flow) const {
        if (!(active & 1 << C)) return false;
        for (int i = DIMS - 1; flow.loops[i] != C; i--)
            if ((active & OUTPUT_DIMS) >> flow.loops[i] & 1) return true;
        return false;
    }

    // Whether this is the first flow with its order of the moving loops, and no tile of a second operand has to wait for it.
    bool runs(const Layer& layer, const Flow& flow) const {
        return (flow.fresh >> signature() & 1) && !(layer.p.extras && spills(flow));
    }

    // (how often each tile of an operand over `dims` is moved, distinct tiles times that)
    void repeats(const Flow& flow, unsigned dims, i64& again, i64& loads) const {
        bool inside = false;
        i64 tiles = 1;
        again = 1;
        for (int i = DIMS - 1; i >= 0; i--) {
            const int d = int(flow.loops[i]);
            if (dims >> d & 1)
                inside |= e[d].count > 1, tiles *= e[d].count;
            else if (inside)
                again *= e[d].count;
        }
        loads = again * tiles;
    }

    i64 bound(const Layer& layer, const Flow& flow) const {
        const Problem& p = layer.p;
        i64 input_again, input_loads, weight_again, weight_loads;
        repeats(flow, INPUT_DIMS, input_again, input_loads);
        repeats(flow, WEIGHT_DIMS, weight_again, weight_loads);
        const i64 input = iy.total() * ix.total() * (p.batch * p.g * p.c * p.input_bits) * input_again;
        const i64 outputs = p.batch * p.g * p.k * p.oy * p.ox;
        const i64 partial = spills(flow) ? (e[C].count - 1) * outputs * p.partial_sum_bits : 0;
        i64 dram = 2 * partial, read = 0, bursts = 0;
        if (p.input_on_chip)
            read += ceil_div(input, p.port_bits);
        else
            dram += input, bursts += input_loads;
        if (!p.weights_on_chip && p.weight_bits) {
            const i64 weights = p.g * p.k * p.c * p.fy * p.fx * p.weight_bits * p.terms;
            dram += (weights + p.g * p.k * p.channel_parameter_bits * e[C].count) * weight_again;
            bursts += weight_loads;
        }
        for (int x = 0; x < p.extras; x++)
            if (!p.extra_on_chip[x])
                dram += p.extra_full[x] ? outputs * p.extra_bits[x]
                                        : e[OY].count * e[OX].count * (p.batch * p.g * p.k * p.extra_bits[x]);
        if (!p.output_on_chip) dram += outputs * p.output_bits, bursts += 1;
        const i64 handshakes = p.burst_overhead * std::max(bursts, dram / p.burst_bits);
        dram = ceil_div(dram, p.dram_bits) + handshakes + p.burst_latency * bursts;
        const i64 post = ceil_div(outputs, layer.outputs_lanes);
        return std::max(compute + edges, std::max(dram, std::max(read, post))) + overhead(layer);
    }
};

// Values of one loop's quantities at a position, at the tile after and at the tile before.
struct Position {
    i64 weight;
    i64 here[2], after[2], before[2];  // the loop's own size; the input window's (oy, ox only)
};

// The sum over all slots: along each moving loop at most five positions differ.
class Schedule {
    const Layer& layer;
    int rank = 0, loops[DIMS], positions[DIMS];
    unsigned inner[DIMS + 1];  // moving loops at this level and inside it
    Position at[DIMS][5];
    Sizes fixed;
    i64 ideal;  // cycles, if the array never waits for a port between the first tile and the last
    mutable i64 stalled = 0;

  public:
    Schedule(const Layer& l, const Tiling& tiling, const Flow& flow)
        : layer(l), fixed(tiling.first), ideal(tiling.compute + tiling.edges + tiling.overhead(l)) {
        for (int i = 0; i < DIMS; i++)
            if (tiling.active >> flow.loops[i] & 1) loops[rank++] = int(flow.loops[i]);
        inner[rank] = 0;
        for (int level = rank - 1; level >= 0; level--) inner[level] = inner[level + 1] | 1u << loops[level];
        for (int level = 0; level < rank; level++) place(level, tiling);
    }

    // The cycles, or any number above `most` if they are more.
    i64 cycles(i64 most) const {
        Sizes here = fixed;
        stalled = 0;
        walk(0, here, -1, -1, false, false, 1, most - ideal);
        return ideal + stalled;
    }

  private:
    void place(int level, const Tiling& tiling) {
        const int d = loops[level];
        const Extent& own = tiling.e[d];
        const i64 n = own.count;
        Position* q = at[level];
        if (d != OY && d != OX) {
            const i64 f = own.first, l = own.last;
            positions[level] = 4;
            q[0] = {1, {f, 0}, {n > 2 ? f : l, 0}, {f, 0}};
            q[1] = {std::max<i64>(n - 3, 0), {f, 0}, {f, 0}, {f, 0}};
            q[2] = {n >= 3, {f, 0}, {l, 0}, {f, 0}};
            q[3] = {1, {l, 0}, {l, 0}, {f, 0}};
            return;
        }
        const Extent* both[2] = {&own, d == OY ? &tiling.iy : &tiling.ix};
        const i64 weight[5] = {1, n >= 3, std::max<i64>(n - 4, 0), n >= 4, 1};
        positions[level] = 5;
        for (int i = 0; i < 5; i++) q[i].weight = weight[i];
        for (int v = 0; v < 2; v++) {
            const i64 f = both[v]->first, m = both[v]->middle, l = both[v]->last;
            const i64 here[5] = {f, m, m, m, l}, after[5] = {n > 2 ? m : l, n > 3 ? m : l, m, l, l},
                      before[5] = {f, f, m, m, n > 2 ? m : f};
            for (int i = 0; i < 5; i++) q[i].here[v] = here[i], q[i].after[v] = after[i], q[i].before[v] = before[i];
        }
    }

    void set(Sizes& sizes, int level, const i64* value) const {
        const int d = loops[level];
        sizes.d[d] = value[0];
        if (d == OY) sizes.iy = value[1];
        if (d == OX) sizes.ix = value[1];
    }

    // Add up how long the array waits in the slots below `level`, each `weight` times, until it is more than `allowed`: then
    // false. next_level: innermost level so far that is not at its last position; previous_level: innermost one not at its
    // first. c_first, c_last: the c loop is outside and stands there.
    bool walk(int level, Sizes& here, int next_level, int previous_level, bool c_first, bool c_last, i64 weight,
              i64 allowed) const {
        if (level == rank || level == DIMS) {  // never DIMS before it is rank, but compilers warn
            stalled += weight * wait(here, next_level, previous_level, c_first, c_last);
            return stalled <= allowed;
        }
        for (int i = 0; i < positions[level]; i++) {
            const Position& q = at[level][i];
            if (!q.weight) continue;
            const bool first = i == 0, last = i == positions[level] - 1, c = loops[level] == C;
            chosen[level] = i;
            set(here, level, q.here);
            if (!walk(level + 1, here, last ? next_level : level, first ? previous_level : level, c ? first : c_first,
                      c ? last : c_last, weight * q.weight, allowed))
                return false;
        }
        return true;
    }

    i64 wait(const Sizes& here, int next_level, int previous_level, bool c_first, bool c_last) const {
        i64 ports[PORTS] = {};
        if (next_level >= 0) {
            Sizes next = here;
            for (int level = next_level; level < rank; level++) {
                const Position* q = at[level];
                set(next, level, level == next_level ? q[chosen[level]].after : q[0].here);
            }
            layer.load(next, inner[next_level], c_at(next_level, c_first), ports);
        }
        if (previous_level >= 0) {
            Sizes previous = here;
            for (int level = previous_level; level < rank; level++) {
                const Position* q = at[level];
                set(previous, level, level == previous_level ? q[chosen[level]].before : q[positions[level] - 1].here);
            }
            layer.store(previous, inner[previous_level], c_at(previous_level, c_last), ports);
        }
        return std::max<i64>(0, *std::max_element(ports, ports + PORTS) - layer.issue(here) - layer.depth);
    }

    // Whether the c loop of the neighbour at which `level` steps stands at the end that matters: never if c itself
    // steps, always if it starts again inside, else as it stands here.
    bool c_at(int level, bool outside) const {
        if (!(inner[0] >> C & 1)) return true;
        if (loops[level] == C) return false;
        return inner[level] >> C & 1 ? true : outside;
    }

    mutable int chosen[DIMS] = {};
};

struct Entry {
    i64 bound, order;
    int flow, tile;
};

}  // namespace

// Cycles and lower bound of given mappings; tiles is [count][6] (n g k c oy ox), flows indexes `order`.
EXPORT void nashc_price(const Problem* problem, const Flow* order, i64 count, const i64* tiles, const i64* flows,
                        i64* cycles, i64* bounds) {
    const Layer layer(*problem);
    for (i64 i = 0; i < count; i++) {
        Tiling tiling(layer, tiles + DIMS * i);
        tiling.floor(layer);
        tiling.expose(layer);
        bounds[i] = tiling.bound(layer, order[flows[i]]);
        cycles[i] = Schedule(layer, tiling, order[flows[i]]).cycles(INT64_MAX);
    }
}

// The tiles of a grid that fit and have an order to run in, by their floors, into `fits`, and how many mappings they have
// with all those orders. Returns how many tiles.
EXPORT i64 nashc_fitting(const Problem* problem, const Flow* order, i64 flows, const Grid* grid, Fit* fits,
                         i64* considered) {
    const Layer layer(*problem);
    const i64 size = grid->n_images * grid->n_blocks * grid->n_rows * grid->n_columns;
    i64 count = 0;
    *considered = 0;
    for (i64 number = 0; number < size; number++) {
        i64 tile[DIMS];
        grid->tile(number, tile);
        Tiling tiling(layer, tile);
        if (!tiling.fits(layer, tile)) continue;
        i64 flows_here = 0;
        for (i64 f = 0; f < flows; f++) flows_here += tiling.runs(layer, order[f]);
        if (!flows_here) continue;
        *considered += flows_here;
        fits[count++] = {tiling.floor(layer), number};
    }
    std::sort(fits, fits + count, [](const Fit& a, const Fit& b) {
        return a.floor != b.floor ? a.floor < b.floor : a.number < b.number;
    });
    return count;
}

// The mapping with the fewest cycles over these tiles x flows, the first in the order (flow, tile) among equals. 1 if there
// is one, 0 if there is no tile, -1 if out of memory.
EXPORT i64 nashc_best_mapping(const Problem* problem, const Flow* order, i64 flows, const Grid* grid, const Fit* fits,
                              i64 count, Found* found) try {
    const Layer layer(*problem);
    found->exact = 0;
    if (!count) return 0;
    // Tiles in the order of their floors, orders of loops by their bounds; entries whose bound is no better wait in no
    // list. All that may tie with the best are priced, so that the first of the equals wins.
    std::vector<Tiling> tilings;
    Entry best{};
    found->cycles = INT64_MAX;
    const auto hopeless = [&](i64 bound, i64 place) {
        return bound > found->cycles || (bound == found->cycles && place > best.order);
    };
    std::vector<Entry> entries;
    const auto later = [](const Entry& a, const Entry& b) {
        return a.bound != b.bound ? a.bound > b.bound : a.order > b.order;
    };
    const auto drain = [&](i64 below) {  // price the entries whose bound is at most `below`
        while (!entries.empty() && entries.front().bound <= below) {
            const Entry entry = entries.front();
            std::pop_heap(entries.begin(), entries.end(), later);
            entries.pop_back();
            if (hopeless(entry.bound, entry.order)) continue;
            const i64 cycles = Schedule(layer, tilings[entry.tile], order[entry.flow]).cycles(found->cycles);
            found->exact++;
            if (!hopeless(cycles, entry.order)) found->cycles = cycles, best = entry;
        }
    };
    for (const Fit* fit = fits; fit < fits + count; fit++) {
        drain(fit->floor);
        if (fit->floor > found->cycles) break;
        i64 tile[DIMS];
        grid->tile(fit->number, tile);
        tilings.emplace_back(layer, tile);
        Tiling& tiling = tilings.back();
        tiling.floor(layer);
        tiling.expose(layer);
        for (int f = 0; f < flows; f++) {
            if (!tiling.runs(layer, order[f])) continue;
            const Entry entry{tiling.bound(layer, order[f]), i64(f) << 32 | fit->number, f, int(tilings.size()) - 1};
            if (hopeless(entry.bound, entry.order)) continue;
            entries.push_back(entry);
            std::push_heap(entries.begin(), entries.end(), later);
        }
    }
    drain(INT64_MAX);
    const Tiling& tiling = tilings[best.tile];
    for (int d = 0; d < DIMS; d++) found->tile[d] = tiling.e[d].first;
    found->flow = best.flow;
    return 1;
} catch (const std::bad_alloc&) {
    return -1;
}
