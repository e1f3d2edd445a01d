// One node of a model: its attributes and packed weights, and what a call does. Internal to the adapter.
#pragma once
#include <cmath>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <vector>

#include "kernels.h"
#include "ort_values.h"

namespace nashc::ort {

constexpr int64_t PMAX = 14;
constexpr int64_t MOST_TERMS = 1 << 16;  // of 2^PMAX each; their sum stays within 32 bits
constexpr size_t MOST_PACKINGS = 16;     // of one layer whose SAME padding depends on the input size

enum class Role { X, W, SCALE, BIAS, X_ZERO, Y_ZERO };

struct Input {
    Role role;
    Element type;
    bool optional = false;
};

struct Operator : CustomOp {
    const char *domain, *name;
    nashc_op kind;
    nashc_output finish;
    Element output;
    std::vector<Input> inputs;
    bool codes, clamps;  // W holds shift codes; the node has `lowest` and `highest`
    int32_t threads;

    size_t index(Role role) const {  // inputs.size() where the operator has no such input
        size_t i = 0;
        while (i < inputs.size() && inputs[i].role != role) i++;
        return i;
    }
    bool integer() const { return kind != NASHC_ADDER_F32 && kind != NASHC_MULTIPLY_F32; }
};

struct Destroy {
    void operator()(nashc_kernel* kernel) const { nashc_kernel_destroy(kernel); }
};
using Kernel = std::unique_ptr<nashc_kernel, Destroy>;

// What a kernel is packed from: W, scale, bias and the output's zero point; checked against one another.
struct Parameters {
    Tensor weights, scale, bias, y_zero;
    Window window;
};

// One node of a model.
class Node {
    const Operator& op;
    ConvAttributes conv;
    int64_t pmax;
    float lowest, highest;
    std::optional<Window> window;  // where the weights are constant
    Kernel fixed;                  // where the padding does not depend on the input either
    mutable std::shared_mutex guard;
    mutable std::map<std::array<int64_t, 4>, Kernel> packings;  // by padding

    void read_attributes(const Attributes& given) {
        conv.auto_pad = given.text("auto_pad", "NOTSET");
        conv.group = given.integer("group", 1);
        conv.kernel_shape = given.integers("kernel_shape");
        conv.strides = given.integers("strides");
        conv.dilations = given.integers("dilations");
        conv.pads = given.integers("pads");
        pmax = op.codes && op.integer() ? given.integer("pmax", PMAX) : PMAX;
        if (pmax < 0 || pmax > PMAX) throw Refusal{"pmax=" + std::to_string(pmax) + "; give 0.." + std::to_string(PMAX)};
        lowest = op.clamps ? given.number("lowest", -INFINITY) : -INFINITY;
        highest = op.clamps ? given.number("highest", INFINITY) : INFINITY;
        if (!(lowest <= highest)) throw Refusal{"lowest is not at most highest; give two numbers in order"};
    }

    template <class Source>  // Source: Tensor of the input at an index
    Parameters parameters(const Source& source) const {
        const auto read = [&](Role role) {
            const size_t index = op.index(role);
            return index < op.inputs.size() ? source(index) : Tensor{};
        };
        Parameters found{read(Role::W), read(Role::SCALE), read(Role::BIAS), read(Role::Y_ZERO), {}};
        Sizes filter = found.weights.shape;
        if (op.codes) {
            if (filter.empty() || filter[0] < 1 || filter[0] > MOST_TERMS)
                throw Refusal{"W has shape " + text(filter) + "; give at least one term, at most " +
                              std::to_string(MOST_TERMS)};
            filter.erase(filter.begin());
        }
        if (filter.size() < 3)
            throw Refusal{"W has shape " + text(found.weights.shape) + "; give " +
                          (op.codes ? "[terms, M, C/group, *kernel]" : "[M, C/group, *kernel]")};
        found.window = window_of(filter, conv);
        const int64_t m = found.window.filters;
        const auto vector = [&](const Tensor& tensor, const char* what, bool one) {
            if (tensor && (tensor.shape.size() != 1 || !(tensor.shape[0] == m || (one && tensor.shape[0] == 1))))
                throw Refusal{what + (" has shape " + text(tensor.shape)) + " but W has " + std::to_string(m) +
                              " output channels; give [" + std::to_string(m) + (one ? "] or [1]" : "]")};
        };
        vector(found.scale, "the scale", true);
        vector(found.bias, "the bias", false);
        zero_point(found.y_zero, "y_zero_point");
        return found;
    }

    int32_t zero_point(const Tensor& tensor, const char* what) const {
        if (!tensor) return 0;
        if (tensor.shape.size() > 1 || tensor.count() != 1)
            throw Refusal{what + (" has shape " + text(tensor.shape)) + "; give one value"};
        const bool is_signed = what[0] == 'x' ? op.inputs[0].type == INT8 : op.output == INT8;
        return is_signed ? *tensor.as<int8_t>() : *tensor.as<uint8_t>();
    }

    template <class T, class Decode>
    static std::vector<T> decoded(const Tensor& codes, int64_t most, const Decode& decode) {
        const int64_t terms = codes.shape[0], count = codes.count() / terms;
        std::vector<T> weights(static_cast<size_t>(count));
        const int64_t bad = decode(codes.as<int8_t>(), terms, count, weights.data());
        if (bad >= 0)
            throw Refusal{"W holds a code of magnitude " + std::to_string(std::abs(codes.as<int8_t>()[bad])) +
                          "; codes must lie in -" + std::to_string(most) + ".." + std::to_string(most)};
        return weights;
    }

    Kernel pack(const Parameters& given, const std::array<int64_t, 4>& pads) const {
        const Window& window = given.window;
        const auto narrow = [](int64_t value) { return static_cast<int32_t>(value); };  // window_of checked the size
        nashc_layer layer{};
        layer.op = op.kind, layer.output = op.finish;
        layer.in_channels = narrow(window.channels * window.group);
        layer.out_channels = narrow(window.filters), layer.groups = narrow(window.group);
        for (size_t axis = 0; axis < 2; axis++) {
            layer.kernel[axis] = narrow(window.kernel[axis]), layer.strides[axis] = narrow(window.strides[axis]);
            layer.dilations[axis] = narrow(window.dilations[axis]);
        }
        for (size_t i = 0; i < 4; i++) layer.pads[i] = narrow(pads[i]);
        layer.output_zero_point = zero_point(given.y_zero, "y_zero_point");
        layer.lowest = lowest, layer.highest = highest;
        std::vector<float> scale;
        if (given.scale) {
            scale.assign(size_t(window.filters), given.scale.as<float>()[0]);
            if (given.scale.shape[0] > 1) std::copy_n(given.scale.as<float>(), scale.size(), scale.begin());
            layer.scale = scale.data();
        }
        layer.bias = given.bias ? given.bias.as<float>() : nullptr;

        std::vector<float> floats;
        std::vector<int32_t> integers;
        const void* weights = given.weights.data;
        if (op.codes && op.integer()) {
            integers = decoded<int32_t>(given.weights, pmax + 1, [&](auto codes, auto terms, auto count, auto* made) {
                return nashc_decode_shift_s32(codes, terms, count, int32_t(pmax), made);
            });
            weights = integers.data();
        } else if (op.codes) {
            floats = decoded<float>(given.weights, PMAX + 1, nashc_decode_shift_f32);
            weights = floats.data();
        }
        char message[512] = "";
        Kernel made(nashc_kernel_create(&layer, weights, nullptr, message, sizeof message));
        if (!made) throw Refusal{message};
        return made;
    }

    // Where the padding depends on the input size, a few kernels serve all sizes: one for each padding.
    const nashc_kernel* kept(const std::array<int64_t, 4>& pads) const {
        std::shared_lock<std::shared_mutex> reading(guard);
        const auto known = packings.find(pads);
        return known == packings.end() ? nullptr : known->second.get();
    }

    // Takes the kernel over unless another call was first; it stays where it is either way.
    void keep(const std::array<int64_t, 4>& pads, Kernel& made) const {
        std::unique_lock<std::shared_mutex> writing(guard);
        if (packings.size() < MOST_PACKINGS) packings.try_emplace(pads, std::move(made));
    }

    Tensor input(const KernelContext* context, size_t index) const {
        size_t count = 0;
        check(api->KernelContext_GetInputCount(context, &count));
        const Value* value = nullptr;
        if (index < count) check(api->KernelContext_GetInput(context, index, &value));
        if (!value && !op.inputs[index].optional) throw Refusal{"an input is missing"};
        return tensor_of(value);
    }

    Parameters of_call(const KernelContext* context) const {
        return parameters([&](size_t index) { return input(context, index); });
    }

    // All inputs that a kernel is packed from are stored in the model, or left out.
    static bool constant(const Operator& op, const KernelInfo* info, std::vector<Tensor>& found) {
        size_t count = 0;
        check(api->KernelInfo_GetInputCount(info, &count));
        found.assign(op.inputs.size(), {});
        for (size_t i = 0; i < std::min(count, op.inputs.size()); i++) {
            if (op.inputs[i].role == Role::X || op.inputs[i].role == Role::X_ZERO) continue;
            int stored = 0;
            const Value* value = nullptr;
            check(api->KernelInfoGetConstantInput_tensor(info, i, &stored, &value));
            size_t size = 0;
            check(api->KernelInfo_GetInputName(info, i, nullptr, &size));
            const bool absent = size <= 1;  // nothing but the final zero
            if (!stored && !absent) return false;
            if (stored) found[i] = tensor_of(value);
        }
        return true;
    }

    struct Pool {
        const KernelContext* context;
        Status* failure;
    };

    static void parallel_for(void* pool, nashc_task task, void* context, size_t count) {
        Pool& own = *static_cast<Pool*>(pool);
        Status* failure = api->KernelContext_ParallelFor(own.context, task, count, 0, context);
        if (own.failure && failure) api->ReleaseStatus(failure);
        if (!own.failure) own.failure = failure;
    }

   public:
    const std::string place;  // how messages name the node

    Node(const Operator& op, const KernelInfo* info, std::string place) : op(op), place(std::move(place)) {
        read_attributes(Attributes(info));
        std::vector<Tensor> stored;
        if (!constant(op, info, stored)) return;
        const Parameters given = parameters([&](size_t index) { return stored[index]; });
        window = given.window;
        if (!window->pads_depend_on_input())
            fixed = pack(given, fixed_pads(*window));
        else  // bad weights are refused at once, whatever the first input will be
            packings.try_emplace(std::array<int64_t, 4>{}, pack(given, {}));
    }

    void run(KernelContext* context) const {
        const Tensor x = input(context, 0);
        std::optional<Parameters> given;
        if (!window) given = of_call(context);
        const Window& used = window ? *window : given->window;
        const Placement at = ort::place(used, x.shape);
        const nashc_kernel* kernel = fixed ? fixed.get() : kept(at.pads);
        Kernel own;
        if (!kernel) {
            own = pack(given ? *given : of_call(context), at.pads);
            kernel = own.get();
            if (window) keep(at.pads, own);
        }

        const size_t zero = op.index(Role::X_ZERO);
        const int32_t x_zero = zero < op.inputs.size() ? zero_point(input(context, zero), "x_zero_point") : 0;
        Sizes shape{x.shape[0], used.filters};
        shape.insert(shape.end(), at.output.begin() + (used.rank == 1), at.output.end());
        Value* y = nullptr;
        void* made = nullptr;
        check(api->KernelContext_GetOutput(context, 0, shape.data(), shape.size(), &y));
        check(api->GetTensorMutableData(y, &made));
        Pool pool{context, nullptr};
        const int failed = nashc_kernel_run(kernel, x.data, x.shape[0], at.input[0], at.input[1], x_zero, made,
                                            op.threads > 1 ? parallel_for : nullptr, &pool, op.threads);
        check(pool.failure);
        if (failed) throw Refusal{"no memory for X of shape " + text(x.shape) + "; give a smaller batch"};
    }
};

}  // namespace nashc::ort
