// Convolution attributes and shapes -> padding and output size, the same rules and messages as ops/geometry.py.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace nashc::ort {

using Sizes = std::vector<int64_t>;

// Bad input; at the border of the library it becomes an error status. Reads "what; what to do next".
struct Refusal {
    std::string what;
};

inline std::string text(const Sizes& sizes) {
    std::string found = "[";
    for (size_t i = 0; i < sizes.size(); i++) found += (i ? ", " : "") + std::to_string(sizes[i]);
    return found + "]";
}

// A one-dimensional layer is one row high: values of its only axis come second, `fill` first.
inline std::array<int64_t, 2> two_axes(const Sizes& values, int64_t fill) {
    return values.size() == 1 ? std::array<int64_t, 2>{fill, values[0]} : std::array<int64_t, 2>{values[0], values[1]};
}

// Attributes of a node as it has them; empty where it leaves them out.
struct ConvAttributes {
    std::string auto_pad = "NOTSET";
    int64_t group = 1;
    std::optional<Sizes> kernel_shape, strides, dilations, pads;
};

// The window of a layer in two dimensions, y before x: all of its geometry that does not depend on the input.
struct Window {
    size_t rank;  // 1 or 2 spatial axes in the model
    int64_t filters, channels, group;
    std::array<int64_t, 2> kernel, strides, dilations;
    std::array<int64_t, 4> pads;  // top, left, bottom, right; of explicit padding
    bool same, lower;

    std::array<int64_t, 2> spans() const {
        return {(kernel[0] - 1) * dilations[0] + 1, (kernel[1] - 1) * dilations[1] + 1};
    }
    bool pads_depend_on_input() const { return same && (strides[0] > 1 || strides[1] > 1); }
};

// Padding and output size for one input, which is checked.
struct Placement {
    std::array<int64_t, 4> pads;
    std::array<int64_t, 2> input, output;
};

constexpr int64_t LARGEST_SIZE = 1 << 24;  // of an attribute or of channels: the kernels' own limit

// Value of an attribute with one number for each axis (pads: two), or its default.
inline Sizes attribute(const char* name, const std::optional<Sizes>& values, size_t count, int64_t fallback) {
    if (!values) return Sizes(count, fallback);
    const int64_t least = fallback;  // strides and dilations start at 1, pads at 0, like their defaults
    const bool fits = std::all_of(values->begin(), values->end(),
                                  [&](int64_t v) { return v >= least && v <= LARGEST_SIZE; });
    if (values->size() != count || !fits)
        throw Refusal{name + ("=" + text(*values)) + "; give " + std::to_string(count) + " integers >= " +
                      std::to_string(least) + ", at most 2^24"};
    return *values;
}

// filter: W's shape without its terms axis, [M, C/group, *kernel].
inline Window window_of(const Sizes& filter, const ConvAttributes& given) {
    const size_t rank = filter.size() - 2;
    if (filter.size() < 3 || rank > 2)
        throw Refusal{"W has convolution axes " + text(filter) + "; give [M, C/group, one or two filter sizes]"};
    if (*std::min_element(filter.begin(), filter.end()) < 1)
        throw Refusal{"W has shape " + text(filter) + "; every size must be positive"};
    const Sizes kernel(filter.begin() + 2, filter.end());
    if (given.kernel_shape && *given.kernel_shape != kernel)
        throw Refusal{"kernel_shape=" + text(*given.kernel_shape) + " but W has filter " + text(kernel) +
                      "; drop kernel_shape"};
    const Sizes strides = attribute("strides", given.strides, rank, 1);
    const Sizes dilations = attribute("dilations", given.dilations, rank, 1);
    const Sizes pads = attribute("pads", given.pads, 2 * rank, 0);
    if (given.group < 1 || filter[0] % given.group)
        throw Refusal{std::to_string(filter[0]) + " output channels do not divide into group=" +
                      std::to_string(given.group) + "; make M a multiple of group"};
    const std::string& mode = given.auto_pad;
    if (mode != "NOTSET" && mode != "SAME_UPPER" && mode != "SAME_LOWER" && mode != "VALID")
        throw Refusal{"unknown auto_pad '" + mode + "'; known: NOTSET, SAME_LOWER, SAME_UPPER, VALID"};
    const bool explicit_pads = std::any_of(pads.begin(), pads.end(), [](int64_t p) { return p != 0; });
    if (mode != "NOTSET" && (explicit_pads || (given.pads && mode != "VALID")))
        throw Refusal{"auto_pad=" + mode + " together with pads=" + text(pads) + "; give only one"};

    Window window{rank, filter[0], filter[1], given.group, two_axes(kernel, 1), two_axes(strides, 1),
                  two_axes(dilations, 1), {}, mode == "SAME_UPPER" || mode == "SAME_LOWER", mode == "SAME_LOWER"};
    const auto begin = two_axes(Sizes(pads.begin(), pads.begin() + long(rank)), 0);
    const auto end = two_axes(Sizes(pads.begin() + long(rank), pads.end()), 0);
    window.pads = {begin[0], begin[1], end[0], end[1]};
    const auto spans = window.spans();  // a product of two 31-bit numbers: 64 bits hold it
    if (std::max(spans[0], spans[1]) > LARGEST_SIZE || window.channels > LARGEST_SIZE / window.group ||
        window.filters > LARGEST_SIZE)
        throw Refusal{"W " + text(filter) + " with dilations " + text(dilations) + " is beyond 2^24; give a smaller layer"};
    return window;
}

// Padding that makes the output ceil(size / stride); SAME_LOWER puts the odd element first.
inline std::array<int64_t, 2> same_pads(int64_t size, int64_t stride, int64_t span, bool lower) {
    const int64_t total = std::max<int64_t>(((size + stride - 1) / stride - 1) * stride + span - size, 0);
    const int64_t small = total / 2, large = total - small;
    return lower ? std::array<int64_t, 2>{large, small} : std::array<int64_t, 2>{small, large};
}

// The padding that holds for every input of at least one element; only where !pads_depend_on_input().
inline std::array<int64_t, 4> fixed_pads(const Window& window) {
    if (!window.same) return window.pads;
    const auto spans = window.spans();
    const auto y = same_pads(1, 1, spans[0], window.lower), x = same_pads(1, 1, spans[1], window.lower);
    return {y[0], x[0], y[1], x[1]};
}

inline Placement place(const Window& window, const Sizes& x) {
    if (x.size() != window.rank + 2)
        throw Refusal{"X has shape " + text(x) + " but W has " + std::to_string(window.rank) +
                      " filter axes; give X as [N, C, " + (window.rank == 1 ? "length]" : "height, width]")};
    if (*std::min_element(x.begin(), x.end()) < 1)
        throw Refusal{"X has shape " + text(x) + ", which holds nothing; give every axis at least one element"};
    const int64_t wanted = window.channels * window.group;
    if (x[1] != wanted)
        throw Refusal{"X has " + std::to_string(x[1]) + " channels but W wants " + std::to_string(window.channels) +
                      " x group " + std::to_string(window.group) + " = " + std::to_string(wanted) +
                      "; check group and the second axis of W (C/group)"};
    if (*std::max_element(x.begin(), x.end()) > INT32_MAX)
        throw Refusal{"X has shape " + text(x) + "; give at most 2^31 - 1 elements an axis"};
    const auto spans = window.spans();
    Placement found{window.pads, two_axes(Sizes(x.begin() + 2, x.end()), 1), {}};
    for (size_t axis = 0; axis < 2; axis++) {
        int64_t &begin = found.pads[axis], &end = found.pads[axis + 2];
        const int64_t size = found.input[axis], stride = window.strides[axis];
        if (window.same) {
            const auto both = same_pads(size, stride, spans[axis], window.lower);
            begin = both[0], end = both[1];
        }
        const int64_t room = size + begin + end - spans[axis];
        if (room < 0)
            throw Refusal{"input " + text(Sizes(x.begin() + 2, x.end())) + " with pads " +
                          text(Sizes(found.pads.begin(), found.pads.end())) + " is smaller than the filter span " +
                          text(Sizes(spans.begin(), spans.end())) + "; give a larger input or more padding"};
        found.output[axis] = room / stride + 1;
    }
    return found;
}

}  // namespace nashc::ort
