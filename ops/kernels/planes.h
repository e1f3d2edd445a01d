// Padded input planes, split by the phases of the stride so that neighbouring outputs are neighbouring lanes. Internal.
#pragma once
#include <cstdint>
#include <vector>

#include "isa.h"
#include "kernels.h"

namespace nashc {

// Of one axis: which input position lies at index i of phase p, and where the taps find theirs.
struct Axis {
    int64_t input, output, stride, before;  // before: positions of padding
    std::vector<int64_t> phases;            // the phases that some tap uses
    std::vector<int64_t> tap_phase;         // per tap: index into `phases`
    std::vector<int64_t> tap_shift;         // per tap: index of output 0 in the phase
    int64_t length;                         // of a phase

    // Windows of a convolution.
    static Axis windows(int64_t input, int64_t output, int64_t taps, int64_t stride, int64_t dilation, int64_t before);
    // [first, last) of phase p that are input positions; the others are padding
    void inside(int64_t phase, int64_t* first, int64_t* last) const;
    int64_t position(int64_t phase, int64_t index) const { return index * stride + phases[(size_t)phase] - before; }
};

struct Planes {
    Axis y, x;
    int64_t element_bytes;         // of a lane
    int64_t bytes;                 // of one plane, a multiple of 64
    std::vector<int64_t> tap_bytes;

    Planes(Axis rows, Axis columns, int64_t element_bytes);
    int64_t pixels() const { return y.output * x.output; }
    // Output pixels first.. of a tile as runs that end where a vector ends; returns how many, at most `count`.
    int64_t runs(int64_t first, int64_t count, int64_t vector_lanes, Run* found) const;
};

// How rows of an input become lanes: `rows` writes `count` whole rows that follow one another, `pitch` lanes apart.
struct RowSource {
    void (*rows)(const void* context, int64_t first, int64_t count, char* lanes, int64_t pitch);
    const void* context;
};

// Rows of floats, which are lanes already.
struct FloatRows {
    const InstructionSet* isa;
    const float* plane;
    int64_t width;

    static void rows(const void* context, int64_t first, int64_t count, char* lanes, int64_t pitch);
    RowSource source() const { return {rows, this}; }
};

// All phases of one plane; `row_scratch` holds the lanes of one input row.
void fill(const Planes& planes, const RowSource& source, uint64_t padding, char* plane, char* row_scratch);

}  // namespace nashc
