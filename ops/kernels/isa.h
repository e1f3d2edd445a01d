// What the code of one instruction set offers to the rest: functions in tables. Internal.
//
// A k-step is one lane of every vector: the channels of one tap that one instruction sums up. A panel holds, for a tile
// of output pixels, the input lanes of every k-step, [k][vectors][pixels]; the weights of a block of output channels
// lie as [k][rows] lanes.
#pragma once
#include <cstddef>
#include <cstdint>

namespace nashc {

enum Mode { ADD_F32, SAD, MUL_F32, DOT4, DOT2, MUL32, MODES };
constexpr int LANE_BYTES[MODES] = {4, 8, 4, 4, 4, 4};
constexpr int LANE_CHANNELS[MODES] = {1, 8, 1, 4, 2, 1};

constexpr int MOST_VECTORS = 4;   // vectors of pixels in a tile
constexpr int MOST_ROWS = 8;      // output channels in a block
constexpr int VECTOR_SLACK = 64;  // bytes that a full vector may reach beyond the last lane

// From sums to the output of `rows` channels of a tile.
struct Epilogue {
    int output;             // nashc_output
    bool negate;            // y = offset - sum instead of offset + sum
    int count;              // pixels of the tile that exist
    char* y;                // of the first channel and pixel
    ptrdiff_t row_bytes;    // from channel to channel; of a depthwise layer from row to row
    const int32_t* offset;  // integers only, per channel, like the following
    const float* scale;
    const float* bias;
    float lowest, highest;  // limits before rounding; for 8 bits they keep it within the type
    int32_t zero_point;
};

// Lanes of one vector of pixels that lie side by side in a plane.
struct Run {
    int64_t source_bytes, target_bytes;  // from the plane (of the tap), and in the panel
};

// Lanes of the k-steps first..last-1 (taps innermost) into a panel. Runs are copied as whole vectors in rising order:
// what one writes beyond its end, the next one overwrites.
using Pack = void (*)(const char* planes, int64_t plane_bytes, const int64_t* tap_bytes, int64_t taps, int64_t first,
                      int64_t last, int vectors, const Run* runs, int64_t run_count, char* panel);

// `sums` [rows][vectors] vectors: added to if `load`, and left there where `epilogue` is null.
using Micro = void (*)(const char* panel, const char* weights, int64_t steps, char* sums, bool load,
                       const Epilogue* epilogue);

// One channel of a depthwise layer: rows of outputs from a padded plane (float, or int16) whose taps lie at offsets.
struct Depthwise {
    const void* weights;  // [taps], float or int16
    const int64_t* offsets;
    int64_t taps;
    int64_t rows, columns, row_length;  // row_length: from row to row of the plane
};
using DepthwiseFilter = void (*)(const Depthwise& layer, const char* plane, Epilogue epilogue);

// dx of a tile for `rows` input channels: sum over steps of dy * clamp(w - x, -1, 1); x and dx are [rows] rows.
using Gradient = void (*)(const char* panel, const float* weights, int64_t steps, const float* x, float* dx,
                          ptrdiff_t row, int64_t count, bool load);

// The same for one input channel and one filter: rows of pixels, dy from a plane whose taps lie at offsets.
using DepthwiseGradient = void (*)(const Depthwise& layer, const char* dy, const float* x, float* dx, bool load);

struct InstructionSet {
    const char* name;
    bool (*supported)();
    int vector_bytes;
    bool dot4_exact;  // DOT4 holds any u8 x s8; else pairs of products must fit 16 bits
    int vectors[MODES], rows[MODES];  // of the best tile and the best block
    int gradient_rows;
    Pack pack;
    Micro micro[MODES][MOST_ROWS];  // [rows - 1]
    Gradient gradient[MOST_ROWS];
    DepthwiseGradient depthwise_gradient;
    DepthwiseFilter depthwise_add_f32, depthwise_mul_f32, depthwise_add_s16, depthwise_mul_s16;
    // `count` pixels of 8 (4, 2) channels' bytes to one lane each; `flip` is xored; 2 channels widen to int16
    void (*interleave8)(const uint8_t* const* channels, uint8_t flip, int64_t count, char* lanes);
    void (*interleave4)(const uint8_t* const* channels, uint8_t flip, int64_t count, char* lanes);
    void (*interleave2)(const uint8_t* const* channels, bool is_signed, int64_t count, char* lanes);
    // dense rows of `width` to rows that begin `pitch` elements apart
    void (*widen_rows)(const uint8_t* bytes, bool is_signed, int64_t rows, int64_t width, int16_t* to, int64_t pitch);
    void (*copy_rows)(const float* from, int64_t rows, int64_t width, float* to, int64_t pitch);
};

extern const InstructionSet PORTABLE;
extern const InstructionSet AVX2;
extern const InstructionSet AVX512;
extern const InstructionSet NEON;

}  // namespace nashc
