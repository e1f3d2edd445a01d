// A layer with its packed weights. Internal.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "isa.h"
#include "kernels.h"
#include "planes.h"

struct nashc_kernel {
    nashc_layer layer;
    const nashc::InstructionSet* isa;
    nashc::Mode mode;
    bool depthwise;
    int64_t channels, filters;    // of one group
    int64_t lanes, taps, steps;   // lanes: k-steps of one tap of one group; steps = lanes * taps
    std::vector<int> blocks;      // rows of each block of a group's filters
    std::vector<char> weights;    // [groups][blocks][steps][rows] lanes, or [filters][taps] of a depthwise layer
    std::vector<int32_t> sums;    // per filter: what x_zero_point multiplies, or for the adder the offset itself
    std::vector<float> scale, bias;

    bool is_float() const { return mode == nashc::ADD_F32 || mode == nashc::MUL_F32; }
    bool is_adder() const { return layer.op <= NASHC_ADDER_U8; }
    bool is_signed() const { return layer.op == NASHC_ADDER_S8 || layer.op == NASHC_MULTIPLY_S8; }
    int64_t output_bytes() const { return layer.output <= NASHC_F32 ? 4 : 1; }
};

namespace nashc {

constexpr int64_t MOST_DEPTHWISE_TAPS = 171;  // 171 * 383 < 2^16: see depthwise_add_s16
constexpr int64_t PANEL_BYTES = 24 * 1024;    // of one tile and some k-steps: with their weights in the first cache
constexpr int64_t PARTS = 4;                  // tasks for each thread, so that none waits long for the last

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool output_size(const nashc_layer& layer, int64_t height, int64_t width, int64_t* out_height, int64_t* out_width);
const InstructionSet* find_instruction_set(const char* name);  // null: the best
// Even parts of at most `most` rows.
std::vector<int> even_blocks(int64_t rows, int most);
// A reason to refuse the geometry, or nothing.
std::string check_geometry(const nashc_layer& layer);

struct Parallel {
    nashc_parallel_for loop = nullptr;  // null: on the calling thread
    void* pool = nullptr;
    int64_t threads = 1;

    template <class Work>
    void operator()(int64_t count, Work& work) const {
        auto task = [](void* context, size_t index) { (*static_cast<Work*>(context))((int64_t)index); };
        if (threads > 1 && loop && count > 1)
            loop(pool, task, &work, (size_t)count);
        else
            for (int64_t i = 0; i < count; i++) work(i);
    }
};

}  // namespace nashc
