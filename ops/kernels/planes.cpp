#include "planes.h"

#include <algorithm>
#include <cstring>

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
    bytes = (phases * y.length * x.length * element + 63) / 64 * 64;
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

template <class T>
void fill_as(const Planes& planes, const RowSource& source, uint64_t padding, char* plane, char* row_scratch) {
    const Axis &y = planes.y, &x = planes.x;
    T pad;
    memcpy(&pad, &padding, sizeof pad);
    T* const row_lanes = reinterpret_cast<T*>(row_scratch);
    T* const start = reinterpret_cast<T*>(plane);
    for (int64_t a = 0; a < (int64_t)y.phases.size(); a++) {
        int64_t top, bottom;
        y.inside(a, &top, &bottom);
        for (int64_t j = 0; j < y.length; j++) {
            const bool real = j >= top && j < bottom;
            if (real && x.stride > 1) source.row(source.context, y.position(a, j), row_scratch);
            for (int64_t b = 0; b < (int64_t)x.phases.size(); b++) {
                T* const to = start + ((a * (int64_t)x.phases.size() + b) * y.length + j) * x.length;
                int64_t left = 0, right = 0;
                if (real) x.inside(b, &left, &right);
                std::fill(to, to + left, pad);
                if (left < right) {
                    const int64_t position = x.position(b, left);
                    if (x.stride == 1 && position == 0 && right - left == x.input) {
                        source.row(source.context, y.position(a, j), reinterpret_cast<char*>(to + left));
                    } else if (x.stride == 1) {  // a filter that does not reach the whole row
                        source.row(source.context, y.position(a, j), row_scratch);
                        std::copy(row_lanes + position, row_lanes + position + (right - left), to + left);
                    } else {
                        for (int64_t i = left; i < right; i++) to[i] = row_lanes[position + (i - left) * x.stride];
                    }
                }
                std::fill(to + right, to + x.length, pad);
            }
        }
    }
}

}  // namespace

void fill(const Planes& planes, const RowSource& source, uint64_t padding, char* plane, char* row_scratch) {
    switch (planes.element_bytes) {
        case 2: return fill_as<uint16_t>(planes, source, padding, plane, row_scratch);
        case 4: return fill_as<uint32_t>(planes, source, padding, plane, row_scratch);
        default: return fill_as<uint64_t>(planes, source, padding, plane, row_scratch);
    }
}

}  // namespace nashc
