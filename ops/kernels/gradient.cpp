// The adder's gradient for x: for each phase of the stride a correlation of dy, with the weights clamped around x.
#include <algorithm>
#include <cstring>
#include <new>

#include "kernel.h"
#include "memory.h"

namespace nashc {
namespace {

thread_local Scratch planes_memory, panel_memory, phase_memory, row_memory;

// Of one axis and one phase of the input positions: the taps that reach it, and where in dy they find their output.
struct Reach {
    int64_t count;              // positions phase, phase + stride, ... of the input
    std::vector<int64_t> taps;  // their numbers
    Axis axis;

    Reach(int64_t input, int64_t outputs, int64_t kernel, int64_t stride, int64_t dilation, int64_t before,
          int64_t phase)
        : count(ceil_div(input - phase, stride)), axis{outputs, count, 1, 0, {0}, {}, {}, count} {
        std::vector<int64_t> shifts;
        for (int64_t tap = 0; tap < kernel; tap++)
            if ((phase + before - tap * dilation) % stride == 0) {
                taps.push_back(tap);
                shifts.push_back((phase + before - tap * dilation) / stride);
            }
        if (taps.empty()) return;
        const auto ends = std::minmax_element(shifts.begin(), shifts.end());
        axis.before = -*ends.first;
        axis.length = count + *ends.second - *ends.first;
        for (int64_t shift : shifts) {
            axis.tap_phase.push_back(0);
            axis.tap_shift.push_back(shift - *ends.first);
        }
    }
};

// What is the same for every image: the positions of one phase, the taps that reach them, and their weights.
struct Phase {
    int64_t phase_y, phase_x;
    Reach y, x;
    Planes planes;
    int64_t pixels, taps;
    std::vector<int64_t> offsets;  // of the taps in a plane, in floats
    std::vector<float> weights;    // [groups][blocks][filters][taps][rows]

    Phase(const nashc_layer& l, int64_t height, int64_t width, int64_t out_height, int64_t out_width, int64_t at_y,
          int64_t at_x)
        : phase_y(at_y), phase_x(at_x),
          y(height, out_height, l.kernel[0], l.strides[0], l.dilations[0], l.pads[0], at_y),
          x(width, out_width, l.kernel[1], l.strides[1], l.dilations[1], l.pads[1], at_x), planes(y.axis, x.axis, 4),
          pixels(y.count * x.count), taps((int64_t)(y.taps.size() * x.taps.size())) {
        for (int64_t bytes : planes.tap_bytes) offsets.push_back(bytes / 4);
    }

    void pack(const nashc_layer& layer, const float* from, int64_t channels, int64_t filters,
              const std::vector<int>& blocks) {
        weights.reserve((size_t)(layer.out_channels * channels * taps));
        for (int64_t g = 0; g < layer.groups; g++) {
            int64_t c = 0;
            for (int rows : blocks) {
                for (int64_t m = 0; m < filters; m++)
                    for (int64_t r : y.taps)
                        for (int64_t q : x.taps)
                            for (int i = 0; i < rows; i++)
                                weights.push_back(from[(((g * filters + m) * channels + c + i) * layer.kernel[0] + r) *
                                                           layer.kernel[1] + q]);
                c += rows;
            }
        }
    }
};

struct Gradients : Allocations {
    const nashc_layer& layer;
    const InstructionSet& isa;
    const float *x, *dy;
    float* dx;
    int64_t height, width, out_height, out_width, channels, filters;
    std::vector<int> blocks;

    int64_t vectors() const { return isa.vectors[ADD_F32]; }

    void run(int64_t n, int64_t g, const Phase& phase, const Parallel& parallel) {
        const int64_t sy = layer.strides[0], sx = layer.strides[1], pixels = phase.pixels;
        const int64_t first_channel = (n * layer.in_channels + g * channels) * height * width;
        const bool gathered = sy > 1 || sx > 1;
        auto positions = [&](auto&& visit) {
            for (int64_t c = 0, i = 0; c < channels; c++)
                for (int64_t j = 0; j < phase.y.count; j++)
                    for (int64_t k = 0; k < phase.x.count; k++, i++)
                        visit(i, first_channel + (c * height + j * sy + phase.phase_y) * width + k * sx + phase.phase_x);
        };
        if (pixels < 1) return;
        if (!phase.taps) return positions([&](int64_t, int64_t at) { dx[at] = 0; });

        const float* from = x + first_channel;
        float* to = dx + first_channel;
        if (gathered) {
            char* memory = allocate(phase_memory, 2 * channels * pixels * 4);
            if (!memory) return;
            float *near = reinterpret_cast<float*>(memory), *far = near + channels * pixels;
            positions([&](int64_t i, int64_t at) { near[i] = x[at]; });
            from = near, to = far;
        }
        const Planes& planes = phase.planes;
        char* dy_planes = allocate(planes_memory, bounded(filters, planes.bytes) + 4 * VECTOR_SLACK);
        if (!dy_planes) return;
        auto plane = [&](int64_t m) {
            const FloatRows rows{&isa, dy + (n * layer.out_channels + g * filters + m) * out_height * out_width, out_width};
            char* row = allocate(row_memory, out_width * 4);
            if (row) fill(planes, rows.source(), 0, dy_planes + m * planes.bytes, row);
        };
        parallel(filters, plane);
        const float* weights = phase.weights.data() + g * channels * filters * phase.taps;
        if (channels == 1) {
            for (int64_t m = 0; m < filters; m++) {
                const Depthwise one{weights + m * phase.taps, phase.offsets.data(), phase.taps, phase.y.count,
                                    phase.x.count, planes.x.length};
                isa.depthwise_gradient(one, dy_planes + m * planes.bytes, from, to, m > 0);
            }
        } else {
            const int64_t tile = vectors() * isa.vector_bytes / 4;
            auto one = [&](int64_t t) { compute(phase, dy_planes, weights, t * tile, from, to); };
            parallel(ceil_div(pixels, tile), one);
        }
        if (gathered) positions([&](int64_t i, int64_t at) { dx[at] = to[i]; });
    }

    void compute(const Phase& phase, const char* dy_planes, const float* weights, int64_t pixel, const float* from,
                 float* to) {
        const Planes& planes = phase.planes;
        const int64_t step_bytes = vectors() * isa.vector_bytes, tile = step_bytes / 4, steps = filters * phase.taps;
        const int64_t panel_steps = std::min(steps, PANEL_BYTES / step_bytes), pixels = phase.pixels;
        const int64_t count = std::min(tile, pixels - pixel);
        char* panel = allocate(panel_memory, panel_steps * step_bytes + 2 * VECTOR_SLACK);
        if (!panel) return;
        Run runs[MOST_VECTORS * 64 / 4];
        const int64_t run_count = planes.runs(pixel, count, tile / vectors(), runs);
        for (int64_t first = 0; first < steps; first += panel_steps) {
            const int64_t last = std::min(steps, first + panel_steps);
            isa.pack(dy_planes, planes.bytes, planes.tap_bytes.data(), phase.taps, first, last, (int)vectors(), runs,
                     run_count, panel);
            int64_t c = 0;
            for (int rows : blocks) {
                isa.gradient[rows - 1](panel, weights + c * steps + first * rows, last - first,
                                       from + c * pixels + pixel, to + c * pixels + pixel, pixels, count, first > 0);
                c += rows;
            }
        }
    }
};

}  // namespace
}  // namespace nashc

using namespace nashc;

extern "C" int nashc_adder_input_gradient(const nashc_layer* layer, const float* x, const float* weights,
                                          const float* dy, int64_t batch, int64_t height, int64_t width, float* dx,
                                          const char* instruction_set, nashc_parallel_for loop, void* pool,
                                          int32_t threads) try {
    const InstructionSet* isa = find_instruction_set(instruction_set);
    int64_t out_height, out_width;
    if (!isa || !check_geometry(*layer).empty() || batch < 1 ||
        !output_size(*layer, height, width, &out_height, &out_width))
        return -1;
    const int64_t channels = layer->in_channels / layer->groups, filters = layer->out_channels / layer->groups;
    Gradients gradients{{},       *layer, *isa,       x,         dy,       dx,
                        height,   width,  out_height, out_width, channels, filters,
                        even_blocks(channels, isa->gradient_rows)};
    std::vector<Phase> phases;
    for (int64_t a = 0; a < layer->strides[0]; a++)
        for (int64_t b = 0; b < layer->strides[1]; b++) {
            phases.emplace_back(*layer, height, width, out_height, out_width, a, b);
            phases.back().pack(*layer, weights, channels, filters, gradients.blocks);
        }
    // many small pieces side by side, or the work within one piece
    const Parallel parallel{loop, pool, std::max(1, threads)}, alone{};
    const int64_t pieces = batch * layer->groups;
    const bool whole = pieces >= PARTS * parallel.threads;
    auto piece = [&](int64_t i) {
        for (const Phase& phase : phases)
            gradients.run(i / layer->groups, i % layer->groups, phase, whole ? alone : parallel);
    };
    (whole ? parallel : alone)(pieces, piece);
    return gradients.failed ? -1 : 0;
} catch (const std::bad_alloc&) {
    return -1;
}
