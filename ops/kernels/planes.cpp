#include "planes.h"

#include <algorithm>
#include <cstring>

#include "memory.h"

namespace nashc {

Axis Axis::windows(int64_t input, int64_t output, int64_t taps, int64_t stride, int64_t dilation, int64_t before) {
    Axis axis{input, output, stride, before, {}, {}, {}, 0};
    int64_t furthest = 0;
    for (int64_t tap = 0; tap < taps; tap++) {
        const int64_t phase = tap * dilation % stride;
        auto found = std::find(axis.phases.begin(), axis.phases.end(), phase);
        axis.tap_phase.push_back(found - axis.phases.begin());
        if (found == axis.phases.end()) axis.phases.push_back(phase);
        axis.tap_shift.push_back(tap * dilation / stride);
        furthest = axis.tap_shift.back();
    }
    axis.length = output + furthest;
    return axis;
}

void Axis::inside(int64_t phase, int64_t* first, int64_t* last) const {
    const int64_t lead = before - phases[(size_t)phase];  // position(i) >= 0 where i * stride >= lead
    *first = lead > 0 ? (lead + stride - 1) / stride : 0;
    *last = input + lead > 0 ? (input + lead + stride - 1) / stride : 0;
    *first = std::min(*first, length);
    *last = std::max(*first, std::min(*last, length));
}

Planes::Planes(Axis rows, Axis columns, int64_t element)
    : y(std::move(rows)), x(std::move(columns)), element_bytes(element) {
    const int64_t phases = (int64_t)(y.phases.size() * x.phases.size());
    bytes = bounded(bounded(phases, y.length), bounded(x.length, element));
    if (bytes == MOST_BYTES) return;  // no memory holds them
    bytes = (bytes + 63) / 64 * 64;
    for (size_t r = 0; r < y.tap_phase.size(); r++)
        for (size_t q = 0; q < x.tap_phase.size(); q++) {
            const int64_t phase = y.tap_phase[r] * (int64_t)x.phases.size() + x.tap_phase[q];
            const int64_t row = phase * y.length + y.tap_shift[r];
            tap_bytes.push_back((row * x.length + x.tap_shift[q]) * element);
        }
}

int64_t Planes::runs(int64_t first, int64_t count, int64_t vector_lanes, Run* found) const {
    int64_t made = 0;
    for (int64_t i = 0; i < count;) {
        const int64_t row = (first + i) / x.output, column = (first + i) % x.output;
        const Run run{(row * x.length + column) * element_bytes, i * element_bytes};
        const bool joins = i % vector_lanes && run.source_bytes - found[made - 1].source_bytes ==
                                                   run.target_bytes - found[made - 1].target_bytes;
        if (!joins) found[made++] = run;
        i += std::min({count - i, x.output - column, vector_lanes - i % vector_lanes});
    }
    return made;
}

namespace {

// One phase: rows [top, bottom) and columns [left, right) are input, the rest is padding.
template <class T>
void fill_phase(const Planes& planes, int64_t a, int64_t b, const RowSource& source, T pad, T* phase, T* row_scratch) {
    const Axis &y = planes.y, &x = planes.x;
    int64_t top, bottom, left, right;
    y.inside(a, &top, &bottom);
    x.inside(b, &left, &right);
    if (left == right) bottom = top;
    const int64_t length = x.length, first = x.position(b, left);
    T* const start = phase + top * length + left;
    const bool whole_rows = x.stride == 1 && first == 0 && right - left == x.input;
    if (whole_rows && y.stride == 1) {
        if (top < bottom)
            source.rows(source.context, y.position(a, top), bottom - top, reinterpret_cast<char*>(start), length);
    } else {
        for (int64_t j = top; j < bottom; j++) {
            T* const to = start + (j - top) * length;
            char* const lanes = reinterpret_cast<char*>(whole_rows ? to : row_scratch);
            source.rows(source.context, y.position(a, j), 1, lanes, x.input);
            if (!whole_rows)
                for (int64_t i = 0; i < right - left; i++) to[i] = row_scratch[first + i * x.stride];
        }
    }
    // padding is one gap before, between and behind the rows of input
    const int64_t rows = bottom - top, gap = length - (right - left);
    if (!rows) {
        std::fill(phase, phase + y.length * length, pad);
        return;
    }
    std::fill(phase, start, pad);
    for (int64_t j = 1; j < rows && gap; j++) {
        T* const to = start + j * length - gap;
        for (int64_t i = 0; i < gap; i++) to[i] = pad;
    }
    std::fill(start + (rows - 1) * length + (right - left), phase + y.length * length, pad);
}

template <class T>
void fill_as(const Planes& planes, const RowSource& source, uint64_t padding, char* plane, char* row_scratch) {
    T pad;
    memcpy(&pad, &padding, sizeof pad);
    T* phase = reinterpret_cast<T*>(plane);
    for (int64_t a = 0; a < (int64_t)planes.y.phases.size(); a++)
        for (int64_t b = 0; b < (int64_t)planes.x.phases.size(); b++, phase += planes.y.length * planes.x.length)
            fill_phase(planes, a, b, source, pad, phase, reinterpret_cast<T*>(row_scratch));
}

}  // namespace

void FloatRows::rows(const void* context, int64_t first, int64_t count, char* lanes, int64_t pitch) {
    const auto& self = *static_cast<const FloatRows*>(context);
    self.isa->copy_rows(self.plane + first * self.width, count, self.width, reinterpret_cast<float*>(lanes), pitch);
}

void fill(const Planes& planes, const RowSource& source, uint64_t padding, char* plane, char* row_scratch) {
    switch (planes.element_bytes) {
        case 2: return fill_as<uint16_t>(planes, source, padding, plane, row_scratch);
        case 4: return fill_as<uint32_t>(planes, source, padding, plane, row_scratch);
        default: return fill_as<uint64_t>(planes, source, padding, plane, row_scratch);
    }
}

}  // namespace nashc
