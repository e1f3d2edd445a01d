// Making a kernel: what the layer needs is checked, a mode is chosen, the weights are packed.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "kernel.h"

namespace nashc {
namespace {

const InstructionSet* const BUILT[] = {
#ifdef __x86_64__
    &AVX512,
    &AVX2,
#endif
#ifdef __aarch64__
    &NEON,
#endif
    &PORTABLE,
};

std::string number(int64_t value) { return std::to_string(value); }

// The largest |sum| of the layer's integers has to fit 32 bits.
std::string check_sums(const nashc_layer& layer, const void* weights, int64_t filter_size) {
    if (layer.op == NASHC_ADDER_F32 || layer.op == NASHC_MULTIPLY_F32) return "";
    int64_t worst = 0, step = layer.op == NASHC_ADDER_S8 ? 255 : layer.op == NASHC_ADDER_U8 ? 383 : 255;
    std::string count;
    if (layer.op <= NASHC_ADDER_U8) {
        worst = filter_size;
        count = number(filter_size) + " taps of |x - w| up to " + number(step);
    } else {
        const int32_t* w = static_cast<const int32_t*>(weights);
        for (int64_t m = 0; m < layer.out_channels; m++) {
            int64_t sum = 0;
            for (int64_t i = 0; i < filter_size; i++) sum += std::llabs((int64_t)w[m * filter_size + i]);
            worst = std::max(worst, sum);
        }
        count = "weights that add up to " + number(worst) + " in 2^-pmax times |x| up to " + number(step);
    }
    const int64_t limit = INT32_MAX;
    if (worst <= limit / step) return "";
    return "a sum may leave the 32-bit accumulator: " + count + " reach " + number(worst) + " * " + number(step) +
           " > 2^31 - 1; take fewer taps or a smaller pmax";
}

std::string check_layer(const nashc_layer& layer, const void* weights) {
    if (layer.op < NASHC_ADDER_F32 || layer.op > NASHC_MULTIPLY_U8) return "unknown op " + number(layer.op);
    if (layer.output < NASHC_SUM || layer.output > NASHC_U8) return "unknown output " + number(layer.output);
    std::string reason = check_geometry(layer);
    if (!reason.empty()) return reason;
    if (!weights) return "no weights";
    if (layer.output != NASHC_SUM && !layer.scale) return "no scale";
    if (layer.output != NASHC_SUM && !(layer.lowest <= layer.highest)) return "lowest is not below highest";
    const int low = layer.output == NASHC_S8 ? -128 : 0, high = layer.output == NASHC_S8 ? 127 : 255;
    if (layer.output >= NASHC_S8 && (layer.output_zero_point < low || layer.output_zero_point > high))
        return "output_zero_point " + number(layer.output_zero_point) + " is not in " + number(low) + ".." + number(high);
    const int64_t filter_size = (int64_t)layer.in_channels / layer.groups * layer.kernel[0] * layer.kernel[1];
    return check_sums(layer, weights, filter_size);
}

// u8 x s8 in one instruction where every weight is a byte and, unless the instruction is exact, no pair saturates.
bool bytes_suffice(const nashc_kernel& kernel, const int32_t* w) {
    const int64_t filter_size = kernel.channels * kernel.taps, pixels = kernel.taps;
    for (int64_t m = 0; m < kernel.layer.out_channels; m++)
        for (int64_t c = 0; c < kernel.channels; c++)
            for (int64_t t = 0; t < pixels; t++) {
                const int64_t at = m * filter_size + c * pixels + t, weight = w[at];
                if (weight < -128 || weight > 127) return false;
                const int64_t next = c % 2 == 0 && c + 1 < kernel.channels ? w[at + pixels] : 0;
                if (!kernel.isa->dot4_exact && c % 2 == 0 && std::llabs(weight) + std::llabs(next) > 128) return false;
            }
    return true;
}

Mode choose_mode(const nashc_kernel& kernel, const void* weights) {
    switch (kernel.layer.op) {
        case NASHC_ADDER_F32: return ADD_F32;
        case NASHC_MULTIPLY_F32: return MUL_F32;
        case NASHC_ADDER_S8:
        case NASHC_ADDER_U8: return SAD;
        default: break;
    }
    const int32_t* w = static_cast<const int32_t*>(weights);
    const int64_t count = kernel.layer.out_channels * kernel.channels * kernel.taps;
    const bool halves = std::all_of(w, w + count, [](int32_t v) { return v >= INT16_MIN && v <= INT16_MAX; });
    const bool one_channel = kernel.channels == 1;  // three of four lanes' channels would be empty
    return !halves ? MUL32 : !one_channel && bytes_suffice(kernel, w) ? DOT4 : DOT2;
}

// One channel of a weight lane.
void pack_channel(const nashc_kernel& kernel, const void* weights, int64_t index, int64_t channel, char* lane) {
    switch (kernel.mode) {
        case ADD_F32:
        case MUL_F32: memcpy(lane, static_cast<const float*>(weights) + index, 4); break;
        case SAD: {
            // uint8 x: |x - w| = |x - max(w, 0)| + |min(w, 0)|, the second part is in the offset
            const int8_t w = static_cast<const int8_t*>(weights)[index];
            lane[channel] = kernel.layer.op == NASHC_ADDER_S8 ? (char)((uint8_t)w ^ 0x80) : (char)std::max<int8_t>(w, 0);
            break;
        }
        case DOT4: lane[channel] = (char)static_cast<const int32_t*>(weights)[index]; break;
        case DOT2: {
            const int16_t w = (int16_t)static_cast<const int32_t*>(weights)[index];
            memcpy(lane + 2 * channel, &w, 2);
            break;
        }
        default: memcpy(lane, static_cast<const int32_t*>(weights) + index, 4);
    }
}

void pack(nashc_kernel& kernel, const void* weights) {
    const int64_t lane_bytes = LANE_BYTES[kernel.mode], per_lane = LANE_CHANNELS[kernel.mode];
    // a channel that does not exist: x holds a real zero there, and so does w
    const char nothing = kernel.mode == SAD && kernel.layer.op == NASHC_ADDER_S8 ? (char)0x80 : 0;
    kernel.weights.assign((size_t)(kernel.layer.out_channels * kernel.steps * lane_bytes), nothing);
    char* lane = kernel.weights.data();
    for (int64_t g = 0; g < kernel.layer.groups; g++) {
        int64_t m = g * kernel.filters;
        for (int rows : kernel.blocks) {
            for (int64_t step = 0; step < kernel.steps; step++)
                for (int r = 0; r < rows; r++, lane += lane_bytes)
                    for (int64_t j = 0; j < per_lane; j++) {
                        const int64_t c = step / kernel.taps * per_lane + j;
                        if (c < kernel.channels)
                            pack_channel(kernel, weights,
                                         ((m + r) * kernel.channels + c) * kernel.taps + step % kernel.taps, j, lane);
                    }
            m += rows;
        }
    }
}

void pack_depthwise(nashc_kernel& kernel, const void* weights) {
    const int64_t count = kernel.layer.out_channels * kernel.taps;
    if (kernel.is_float()) {
        const char* bytes = static_cast<const char*>(weights);
        kernel.weights.assign(bytes, bytes + count * 4);
        return;
    }
    kernel.weights.resize((size_t)count * 2);
    for (int64_t i = 0; i < count; i++) {
        const int16_t w = kernel.is_adder() ? static_cast<const int8_t*>(weights)[i]
                                            : (int16_t)static_cast<const int32_t*>(weights)[i];
        memcpy(kernel.weights.data() + i * 2, &w, 2);
    }
}

void add_offsets(nashc_kernel& kernel, const void* weights) {
    if (kernel.is_float()) return;
    const int64_t filter_size = kernel.channels * kernel.taps;
    const bool byte_input = kernel.layer.op == NASHC_ADDER_U8 && !kernel.depthwise;
    for (int64_t m = 0; m < kernel.layer.out_channels; m++) {
        int64_t sum = 0;
        for (int64_t i = 0; i < filter_size; i++) {
            if (!kernel.is_adder()) sum += static_cast<const int32_t*>(weights)[m * filter_size + i];
            if (byte_input) sum += std::min<int64_t>(0, static_cast<const int8_t*>(weights)[m * filter_size + i]);
        }
        kernel.sums.push_back((int32_t)sum);
    }
}

}  // namespace

const InstructionSet* find_instruction_set(const char* name) {
    for (const InstructionSet* isa : BUILT)
        if ((!name || !strcmp(name, isa->name)) && isa->supported()) return isa;
    return nullptr;
}

std::vector<int> even_blocks(int64_t rows, int most) {
    const int64_t count = (rows + most - 1) / most;
    std::vector<int> blocks;
    for (int64_t i = 0; i < count; i++) blocks.push_back((int)(rows * (i + 1) / count - rows * i / count));
    return blocks;
}

std::string check_geometry(const nashc_layer& layer) {
    constexpr int32_t LARGEST = 1 << 24;  // far beyond any layer, and products of a few stay within 64 bits
    auto good = [](int32_t value, int32_t least) { return value >= least && value <= LARGEST; };
    if (!good(layer.in_channels, 1) || !good(layer.out_channels, 1) || !good(layer.groups, 1))
        return "channels " + number(layer.in_channels) + " -> " + number(layer.out_channels) + " in " +
               number(layer.groups) + " groups: give positive numbers";
    if (layer.in_channels % layer.groups || layer.out_channels % layer.groups)
        return "channels " + number(layer.in_channels) + " -> " + number(layer.out_channels) +
               " do not divide into " + number(layer.groups) + " groups";
    for (int axis = 0; axis < 2; axis++)
        if (!good(layer.kernel[axis], 1) || !good(layer.strides[axis], 1) || !good(layer.dilations[axis], 1) ||
            !good(layer.pads[axis], 0) || !good(layer.pads[2 + axis], 0))
            return "kernel, strides and dilations must be positive and pads not negative";
    return "";
}

bool output_size(const nashc_layer& layer, int64_t height, int64_t width, int64_t* out_height, int64_t* out_width) {
    constexpr int64_t LARGEST = (int64_t)1 << 31;
    const int64_t input[2] = {height, width};
    int64_t* const output[2] = {out_height, out_width};
    for (int axis = 0; axis < 2; axis++) {
        const int64_t span = ((int64_t)layer.kernel[axis] - 1) * layer.dilations[axis] + 1;
        const int64_t room = input[axis] + layer.pads[axis] + layer.pads[2 + axis] - span;
        if (input[axis] < 1 || input[axis] > LARGEST || room < 0) return false;
        *output[axis] = room / layer.strides[axis] + 1;
    }
    return true;
}

}  // namespace nashc

using namespace nashc;

extern "C" nashc_kernel* nashc_kernel_create(const nashc_layer* layer, const void* weights, const char* name,
                                             char* message, size_t message_size) try {
    const InstructionSet* isa = find_instruction_set(name);
    std::string reason = isa ? check_layer(*layer, weights) : "no instruction set '" + std::string(name ? name : "") + "'";
    if (!reason.empty()) {
        if (message_size) snprintf(message, message_size, "%s", reason.c_str());
        return nullptr;
    }
    auto kernel = std::make_unique<nashc_kernel>();
    kernel->layer = *layer;
    kernel->isa = isa;
    kernel->channels = layer->in_channels / layer->groups;
    kernel->filters = layer->out_channels / layer->groups;
    kernel->taps = (int64_t)layer->kernel[0] * layer->kernel[1];
    kernel->mode = choose_mode(*kernel, weights);
    kernel->depthwise = kernel->channels == 1 && kernel->mode != MUL32 && kernel->taps <= MOST_DEPTHWISE_TAPS &&
                        layer->groups > 1;
    kernel->lanes = (kernel->channels + LANE_CHANNELS[kernel->mode] - 1) / LANE_CHANNELS[kernel->mode];
    kernel->steps = kernel->lanes * kernel->taps;
    kernel->blocks = even_blocks(kernel->filters, isa->rows[kernel->mode]);
    add_offsets(*kernel, weights);
    kernel->depthwise ? pack_depthwise(*kernel, weights) : pack(*kernel, weights);
    const auto m = (size_t)layer->out_channels;
    if (layer->output != NASHC_SUM) {
        kernel->scale.assign(layer->scale, layer->scale + m);
        kernel->bias.assign(m, 0.0f);
        if (layer->bias) kernel->bias.assign(layer->bias, layer->bias + m);
    }
    if (layer->output >= NASHC_S8) {  // limits before rounding, which keep the rounded value within the type
        const float low = (layer->output == NASHC_S8 ? -128.0f : 0.0f) - (float)layer->output_zero_point;
        kernel->layer.lowest = std::min(std::max(layer->lowest, low), low + 255.0f);
        kernel->layer.highest = std::min(std::max(layer->highest, low), low + 255.0f);
    }
    kernel->layer.scale = kernel->layer.bias = nullptr;
    return kernel.release();
} catch (const std::bad_alloc&) {
    if (message_size) snprintf(message, message_size, "no memory for the packed weights");
    return nullptr;
}

extern "C" void nashc_kernel_destroy(nashc_kernel* kernel) { delete kernel; }

extern "C" const char* nashc_kernel_instruction_set(const nashc_kernel* kernel) { return kernel->isa->name; }

extern "C" int nashc_kernel_output_size(const nashc_kernel* kernel, int64_t height, int64_t width, int64_t* out_height,
                                        int64_t* out_width) {
    return output_size(kernel->layer, height, width, out_height, out_width) ? 0 : -1;
}

extern "C" const char* nashc_instruction_sets(void) {
    static const std::string names = [] {
        std::string found;
        for (const InstructionSet* isa : BUILT)
            if (isa->supported()) found += (found.empty() ? "" : ",") + std::string(isa->name);
        return found;
    }();
    return names.c_str();
}
