// Running a kernel: input planes, then tiles of output pixels times blocks of channels.
#include <algorithm>
#include <cstring>
#include <new>

#include "kernel.h"
#include "memory.h"

namespace nashc {
namespace {

constexpr int64_t MOST_TILES = 8;                // that share one pass over the weights
constexpr int64_t FEW_PLANE_BYTES = 512 * 1024;  // quicker filled by one thread than shared out to several

thread_local Scratch planes_memory, panel_memory, row_memory;

uint64_t repeat(uint64_t byte) { return (byte & 0xff) * 0x0101010101010101u; }

struct Job : Allocations {
    const nashc_kernel& kernel;
    const char* x;
    char* y;
    int64_t batch, height, width, out_height, out_width;
    int32_t x_zero_point;
    std::vector<int32_t> offsets;
    Planes planes;

    Job(const nashc_kernel& k, const void* x_, void* y_, int64_t n, int64_t h, int64_t w, int64_t oh, int64_t ow,
        int32_t zero, int64_t element_bytes)
        : kernel(k), x(static_cast<const char*>(x_)), y(static_cast<char*>(y_)), batch(n), height(h), width(w),
          out_height(oh), out_width(ow), x_zero_point(zero),
          planes(Axis::windows(h, oh, k.layer.kernel[0], k.layer.strides[0], k.layer.dilations[0], k.layer.pads[0]),
                 Axis::windows(w, ow, k.layer.kernel[1], k.layer.strides[1], k.layer.dilations[1], k.layer.pads[1]),
                 element_bytes) {
        const bool flipped = kernel.mode == DOT4 && kernel.is_signed();
        const uint32_t factor = kernel.is_adder() ? 1u : (uint32_t)x_zero_point + (flipped ? 128u : 0u);
        for (int32_t sum : kernel.sums) offsets.push_back((int32_t)((kernel.is_adder() ? 1u : 0u - factor) * (uint32_t)sum));
    }

    int64_t input_bytes() const { return kernel.is_float() ? 4 : 1; }
    const char* channel(int64_t n, int64_t c) const {
        return x + ((n * kernel.layer.in_channels + c) * height) * width * input_bytes();
    }
    // Where the float input needs no planes: the panel is copied from it, in whole vectors.
    bool direct() const {
        const nashc_layer& l = kernel.layer;
        return !kernel.depthwise && kernel.is_float() && kernel.taps == 1 && l.strides[0] == 1 && l.strides[1] == 1 &&
               !(l.pads[0] | l.pads[1] | l.pads[2] | l.pads[3]) && height * width % tile_pixels() == 0;
    }
    int64_t plane_stride() const { return direct() ? height * width * 4 : planes.bytes; }
    int64_t vector_lanes() const { return kernel.isa->vector_bytes / LANE_BYTES[kernel.mode]; }
    int64_t vectors() const { return kernel.isa->vectors[kernel.mode]; }
    int64_t tile_pixels() const { return vectors() * vector_lanes(); }
    int64_t tiles() const { return ceil_div(planes.pixels(), tile_pixels()); }

    uint64_t padding() const {
        const uint32_t zero = (uint32_t)x_zero_point;
        switch (kernel.mode) {
            case SAD: return repeat(kernel.is_signed() ? 0x80 : 0);
            case DOT4: return repeat(zero ^ (kernel.is_signed() ? 0x80u : 0u));
            case DOT2: return (zero & 0xffff) * 0x00010001u;
            case MUL32: return zero;
            default: return 0;
        }
    }

    FloatRows float_rows(int64_t n, int64_t c) const {
        return {kernel.isa, reinterpret_cast<const float*>(channel(n, c)), width};
    }
    // What becomes of the sums of filter m and those after it.
    Epilogue epilogue(int64_t m) const {
        Epilogue found{};
        found.output = kernel.layer.output;
        found.negate = kernel.is_adder();
        if (!offsets.empty()) found.offset = offsets.data() + m;
        if (!kernel.scale.empty()) found.scale = kernel.scale.data() + m, found.bias = kernel.bias.data() + m;
        found.lowest = kernel.layer.lowest;
        found.highest = kernel.layer.highest;
        found.zero_point = kernel.layer.output_zero_point;
        return found;
    }
};

// ---- input planes

// The byte channels of one lane, row by row.
struct LaneRows {
    const Job* job;
    const uint8_t* channels[8];
    bool exists[8];

    static void rows(const void* context, int64_t first, int64_t count, char* lanes, int64_t pitch) {
        const auto& self = *static_cast<const LaneRows*>(context);
        const Job& job = *self.job;
        const nashc_kernel& kernel = job.kernel;
        int64_t width = job.width;
        const int64_t row_bytes = pitch * LANE_BYTES[kernel.mode];
        if (pitch == width) width *= count, count = 1;
        const uint8_t* at[8];
        for (int64_t c = 0; c < LANE_CHANNELS[kernel.mode]; c++)
            at[c] = self.channels[c] + (self.exists[c] ? first * job.width : 0);
        for (int64_t row = 0; row < count; row++, lanes += row_bytes) {
            self.interleave(at, width, lanes);
            for (int64_t c = 0; c < LANE_CHANNELS[kernel.mode]; c++)
                if (self.exists[c]) at[c] += width;
        }
    }

    void interleave(const uint8_t* const* at, int64_t count, char* lanes) const {
        const nashc_kernel& kernel = job->kernel;
        const uint8_t flip = kernel.is_signed() ? 0x80 : 0;
        switch (kernel.mode) {
            case SAD: return kernel.isa->interleave8(at, flip, count, lanes);
            case DOT4: return kernel.isa->interleave4(at, flip, count, lanes);
            case DOT2: return kernel.isa->interleave2(at, kernel.is_signed(), count, lanes);
            default:  // MUL32
                for (int64_t i = 0; i < count; i++) {
                    const int32_t value = kernel.is_signed() ? (int8_t)at[0][i] : at[0][i];
                    memcpy(lanes + 4 * i, &value, 4);
                }
        }
    }
};

// Planes of lane `lane` (over all groups) of image n.
void fill_lane(Job& job, int64_t n, int64_t lane, char* planes) {
    const nashc_kernel& kernel = job.kernel;
    const int64_t group = lane / kernel.lanes, channel = lane % kernel.lanes * LANE_CHANNELS[kernel.mode];
    // the lanes of one input row, and a channel of real zeros in place of those that do not exist
    const int64_t pixels = job.height * job.width, lanes_bytes = (job.width * 8 + 127) / 64 * 64;
    const bool full = channel + LANE_CHANNELS[kernel.mode] <= kernel.channels;
    char* scratch = job.allocate(row_memory, lanes_bytes + (full ? 0 : pixels));
    if (!scratch) return;
    char* const plane = planes + lane * job.planes.bytes;
    if (kernel.is_float()) return fill(job.planes, job.float_rows(n, lane).source(), 0, plane, scratch);
    char* nothing = scratch + lanes_bytes;
    if (!full) memset(nothing, 0, (size_t)pixels);
    LaneRows rows{&job, {}, {}};
    for (int64_t j = 0; j < LANE_CHANNELS[kernel.mode]; j++) {
        rows.exists[j] = channel + j < kernel.channels;
        rows.channels[j] = reinterpret_cast<const uint8_t*>(
            rows.exists[j] ? job.channel(n, group * kernel.channels + channel + j) : nothing);
    }
    fill(job.planes, RowSource{LaneRows::rows, &rows}, job.padding(), plane, scratch);
}

// ---- tiles

struct Part {
    int64_t image, group, first_tile, last_tile, first_block, last_block;
};

void compute(Job& job, const char* planes, const Part& part) {
    const nashc_kernel& kernel = job.kernel;
    const int64_t vector = kernel.isa->vector_bytes, step_bytes = job.vectors() * vector;
    const int64_t tile = job.tile_pixels(), pixels = job.planes.pixels(), out_bytes = kernel.output_bytes();
    const int64_t lane_bytes = LANE_BYTES[kernel.mode], most_steps = PANEL_BYTES / step_bytes;
    const int64_t panel_steps = std::min(kernel.steps, most_steps);
    const bool several = kernel.steps > panel_steps;
    int64_t skipped = 0, rows_here = 0;
    for (int64_t b = 0; b < part.last_block; b++) (b < part.first_block ? skipped : rows_here) += kernel.blocks[(size_t)b];
    const int64_t kept_bytes = several ? (part.last_tile - part.first_tile) * rows_here * step_bytes : 0;
    const int64_t panel_bytes = (panel_steps * step_bytes + 2 * VECTOR_SLACK + 63) / 64 * 64;
    char* panel = job.allocate(panel_memory, panel_bytes + kept_bytes);
    if (!panel) return;
    char* const kept = panel + panel_bytes;
    const char* base = job.direct() ? job.channel(part.image, part.group * kernel.channels)
                                    : planes + part.group * kernel.lanes * job.planes.bytes;
    const char* group_weights = kernel.weights.data() + part.group * kernel.filters * kernel.steps * lane_bytes;
    const int* blocks = kernel.blocks.data();
    const Micro* micro = kernel.isa->micro[kernel.mode];
    Run runs[MOST_VECTORS * 64 / 4];
    for (int64_t first = 0; first < kernel.steps; first += panel_steps) {
        const int64_t last = std::min(kernel.steps, first + panel_steps);
        for (int64_t t = part.first_tile; t < part.last_tile; t++) {
            const int64_t pixel = t * tile, count = std::min(tile, pixels - pixel);
            const int64_t run_count = job.planes.runs(pixel, count, job.vector_lanes(), runs);
            kernel.isa->pack(base, job.plane_stride(), job.planes.tap_bytes.data(), kernel.taps, first, last, (int)job.vectors(),
                             runs, run_count, panel);
            const int64_t filter = part.group * kernel.filters + skipped;
            Epilogue epilogue = job.epilogue(filter);
            epilogue.count = (int)count;
            epilogue.row_bytes = pixels * out_bytes;
            epilogue.y = job.y + ((part.image * kernel.layer.out_channels + filter) * pixels + pixel) * out_bytes;
            char* sums = kept + (t - part.first_tile) * rows_here * step_bytes;
            const char* block = group_weights + skipped * kernel.steps * lane_bytes;
            for (int64_t b = part.first_block; b < part.last_block; b++) {
                const int rows = blocks[b];
                micro[rows - 1](panel, block + first * rows * lane_bytes, last - first, sums, first > 0,
                                last == kernel.steps ? &epilogue : nullptr);
                block += kernel.steps * rows * lane_bytes;
                sums += rows * step_bytes;
                epilogue.y += rows * epilogue.row_bytes;
                if (epilogue.offset) epilogue.offset += rows;
                if (epilogue.scale) epilogue.scale += rows, epilogue.bias += rows;
            }
        }
    }
}

void whole_images(Job& job, const Parallel& parallel) {
    const nashc_kernel& kernel = job.kernel;
    const int64_t all_lanes = kernel.lanes * kernel.layer.groups, blocks = (int64_t)kernel.blocks.size();
    auto image = [&](int64_t n) {
        char* planes = nullptr;
        if (!job.direct()) {
            planes = job.allocate(planes_memory, bounded(all_lanes, job.planes.bytes) + VECTOR_SLACK);
            if (!planes) return;
            for (int64_t lane = 0; lane < all_lanes; lane++) fill_lane(job, n, lane, planes);
        }
        for (int64_t g = 0; g < kernel.layer.groups; g++)
            for (int64_t t = 0; t < job.tiles(); t += MOST_TILES)
                compute(job, planes, {n, g, t, std::min(job.tiles(), t + MOST_TILES), 0, blocks});
    };
    parallel(job.batch, image);
}

void split_images(Job& job, const Parallel& parallel) {
    const nashc_kernel& kernel = job.kernel;
    const int64_t all_lanes = kernel.lanes * kernel.layer.groups, blocks = (int64_t)kernel.blocks.size();
    const int64_t wanted = PARTS * parallel.threads;
    char* planes = nullptr;
    if (!job.direct()) {
        planes = job.allocate(planes_memory, bounded(all_lanes, job.planes.bytes) + VECTOR_SLACK);
        if (!planes) return;
    }
    const int64_t tiles_each = std::max<int64_t>(1, std::min(MOST_TILES, job.tiles() * kernel.layer.groups / wanted));
    const int64_t columns = ceil_div(job.tiles(), tiles_each), places = columns * kernel.layer.groups;
    const int64_t splits = std::min(blocks, ceil_div(wanted, places));
    const int64_t lanes_each = ceil_div(all_lanes, wanted);
    for (int64_t n = 0; n < job.batch; n++) {
        if (planes) {
            auto lanes = [&](int64_t i) {
                const int64_t last = std::min(all_lanes, (i + 1) * lanes_each);
                for (int64_t lane = i * lanes_each; lane < last; lane++) fill_lane(job, n, lane, planes);
            };
            const bool few = all_lanes * job.planes.bytes <= FEW_PLANE_BYTES;
            (few ? Parallel{} : parallel)(ceil_div(all_lanes, lanes_each), lanes);
        }
        auto place = [&](int64_t i) {
            const int64_t split = i % splits, column = i / splits % columns, g = i / splits / columns;
            compute(job, planes,
                    {n, g, column * tiles_each, std::min(job.tiles(), (column + 1) * tiles_each),
                     blocks * split / splits, blocks * (split + 1) / splits});
        };
        parallel(places * splits, place);
    }
}

// ---- depthwise

struct ByteRows {
    const Job* job;
    const char* channel;

    static void rows(const void* context, int64_t first, int64_t count, char* lanes, int64_t pitch) {
        const auto& self = *static_cast<const ByteRows*>(context);
        const nashc_kernel& kernel = self.job->kernel;
        const int64_t width = self.job->width;
        kernel.isa->widen_rows(reinterpret_cast<const uint8_t*>(self.channel) + first * width, kernel.is_signed(), count,
                               width, reinterpret_cast<int16_t*>(lanes), pitch);
    }
};

void depthwise_filter(Job& job, const std::vector<int64_t>& offsets, int64_t n, int64_t m) {
    const nashc_kernel& kernel = job.kernel;
    const Planes& planes = job.planes;
    const int64_t size = planes.element_bytes, out_bytes = kernel.output_bytes();
    const int64_t rows = planes.y.output, columns = planes.x.output, length = planes.x.length;
    char* scratch = job.allocate(row_memory, job.width * 4 + 64);
    char* plane = job.allocate(planes_memory, planes.bytes + 8 * VECTOR_SLACK);
    if (!scratch || !plane) return;
    const int64_t c = m / kernel.filters;
    if (kernel.is_float()) {
        fill(planes, job.float_rows(n, c).source(), 0, plane, scratch);
    } else {
        const ByteRows rows_of{&job, job.channel(n, c)};
        const uint64_t padding = kernel.is_adder() ? 0 : (uint32_t)job.x_zero_point & 0xffff;
        fill(planes, RowSource{ByteRows::rows, &rows_of}, padding, plane, scratch);
    }

    Depthwise layer{kernel.weights.data() + m * kernel.taps * size, offsets.data(), kernel.taps, rows, columns, length};
    Epilogue epilogue = job.epilogue(m);
    const InstructionSet& isa = *kernel.isa;
    const DepthwiseFilter filter = kernel.mode == ADD_F32   ? isa.depthwise_add_f32
                                : kernel.mode == MUL_F32 ? isa.depthwise_mul_f32
                                : kernel.mode == SAD     ? isa.depthwise_add_s16
                                                         : isa.depthwise_mul_s16;
    char* const y = job.y + (n * kernel.layer.out_channels + m) * rows * columns * out_bytes;
    const int64_t vector = isa.vector_bytes / size, flat = (rows - 1) * length + columns;
    epilogue.y = y;
    epilogue.row_bytes = columns * out_bytes;
    const bool dense = length == columns, wide = ceil_div(flat, vector) >= rows * ceil_div(columns, vector);
    if (dense) layer.rows = 1, layer.columns = flat;
    if (dense || wide) return filter(layer, plane, epilogue);
    // narrow rows: over the padding between them, too, so that the vectors are full
    char* all = job.allocate(panel_memory, flat * out_bytes);
    if (!all) return;
    epilogue.y = all;
    layer.rows = 1, layer.columns = flat;
    filter(layer, plane, epilogue);
    for (int64_t row = 0; row < rows; row++)
        memcpy(y + row * columns * out_bytes, all + row * length * out_bytes, (size_t)(columns * out_bytes));
}

void depthwise(Job& job, const Parallel& parallel) {
    const int64_t filters = job.kernel.layer.out_channels, all = job.batch * filters;
    std::vector<int64_t> offsets = job.planes.tap_bytes;
    for (int64_t& offset : offsets) offset /= job.planes.element_bytes;
    const int64_t each = ceil_div(all, PARTS * parallel.threads);
    auto some = [&](int64_t i) {
        for (int64_t j = i * each; j < std::min(all, (i + 1) * each); j++)
            depthwise_filter(job, offsets, j / filters, j % filters);
    };
    parallel(ceil_div(all, each), some);
}

}  // namespace
}  // namespace nashc

using namespace nashc;

extern "C" int nashc_kernel_run(const nashc_kernel* kernel, const void* x, int64_t batch, int64_t height, int64_t width,
                                int32_t x_zero_point, void* y, nashc_parallel_for loop, void* pool,
                                int32_t threads) try {
    int64_t out_height, out_width;
    if (batch < 1 || !output_size(kernel->layer, height, width, &out_height, &out_width)) return -1;
    const int64_t element = !kernel->depthwise ? LANE_BYTES[kernel->mode] : kernel->is_float() ? 4 : 2;
    Job job(*kernel, x, y, batch, height, width, out_height, out_width, x_zero_point, element);
    const Parallel parallel{loop, pool, std::max(1, threads)};
    if (kernel->depthwise)
        depthwise(job, parallel);
    else if (parallel.threads == 1 || batch >= PARTS * parallel.threads)
        whole_images(job, parallel);
    else
        split_images(job, parallel);
    return job.failed ? -1 : 0;
} catch (const std::bad_alloc&) {
    return -1;
}
