// The operators of ai.nashc, and their fused forms, as custom operators of onnxruntime.
//
// An operator is a row of `operators()`: its inputs by role, and the kernel (kernels.h) that computes it. Constant
// weights are packed when the kernel is made, others in each call. Work runs on onnxruntime's own threads, and calls of
// one session do not wait for one another. No exception leaves the library: every refusal is an OrtStatus.

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "kernels.h"
#include "ort_abi.h"
#include "ort_node.h"
#include "ort_values.h"

namespace nashc::ort {
namespace {

// ai.nashc.fused is made by nashc.runtime when a model is loaded and is in no file:
//   FusedAdderConv(X, W, scale, bias) = clamp(AdderConv * scale[m] + bias[m]), float; FusedShiftConv the same of the
//     sum over x * decode(W)
//   Quantized*Conv(X, W, scale, bias, y_zero_point, x_zero_point?) = the same of the integer sum, rounded half to even,
//     plus y_zero_point and saturated to its type;  Dequantized*Conv(X, W, scale, bias, x_zero_point?) = without rounding
// with clamp(v) = min(max(v, lowest), highest), both attributes, and `pmax` as in ShiftConvInteger.
constexpr const char *DOMAIN = "ai.nashc", *FUSED_DOMAIN = "ai.nashc.fused";
constexpr const char* THREADS_KEY = "nashc.threads";  // session configuration: threads of the session, if not all CPUs

std::string node_name(const Operator& op, const KernelInfo* info) {
    size_t size = 0;
    std::string name;
    if (succeeded(api->KernelInfo_GetNodeName(info, nullptr, &size)) && size > 1) {
        name.resize(size);
        if (!succeeded(api->KernelInfo_GetNodeName(info, name.data(), &size))) name.clear();
        name.resize(std::min(name.size(), name.find('\0')));
    }
    return name.empty() ? op.name : "node '" + name + "' (" + op.name + ")";
}

Status* create(const CustomOp* custom, const void*, const KernelInfo* info, void** kernel) {
    const Operator& op = *static_cast<const Operator*>(custom);
    return guarded(op.name, [&] {
        const std::string place = node_name(op, info);
        check(guarded(place, [&] { *kernel = new Node(op, info, place); }));
    });
}

Status* compute(void* kernel, KernelContext* context) {
    const Node& node = *static_cast<const Node*>(kernel);
    return guarded(node.place, [&] { node.run(context); });
}

Operator make(const char* domain, const char* name, nashc_op kind, nashc_output finish, Element output,
              std::vector<Input> inputs, bool codes, bool clamps) {
    static constexpr auto required = [](const CustomOp*, size_t) -> int { return REQUIRED; };
    static constexpr auto one = [](const CustomOp*) { return 1; };
    Operator op{};
    op.version = API_VERSION;
    op.GetName = [](const CustomOp* op) { return static_cast<const Operator*>(op)->name; };
    op.GetExecutionProviderType = [](const CustomOp*) -> const char* { return nullptr; };  // the CPU
    op.GetInputType = [](const CustomOp* op, size_t i) -> int { return static_cast<const Operator*>(op)->inputs[i].type; };
    op.GetInputTypeCount = [](const CustomOp* op) { return static_cast<const Operator*>(op)->inputs.size(); };
    op.GetOutputType = [](const CustomOp* op, size_t) -> int { return static_cast<const Operator*>(op)->output; };
    op.GetOutputTypeCount = [](const CustomOp*) -> size_t { return 1; };
    op.KernelDestroy = [](void* kernel) { delete static_cast<Node*>(kernel); };
    op.GetInputCharacteristic = [](const CustomOp* op, size_t i) -> int {
        return static_cast<const Operator*>(op)->inputs[i].optional ? OPTIONAL : REQUIRED;
    };
    op.GetOutputCharacteristic = required;
    op.GetInputMemoryType = required;  // 0 as well: the default
    op.GetVariadicInputMinArity = op.GetVariadicInputHomogeneity = one;
    op.GetVariadicOutputMinArity = op.GetVariadicOutputHomogeneity = one;
    op.CreateKernelV2 = create;
    op.KernelComputeV2 = compute;
    op.GetStartVersion = one;
    op.GetEndVersion = [](const CustomOp*) { return INT32_MAX; };
    op.domain = domain, op.name = name, op.kind = kind, op.finish = finish, op.output = output;
    op.inputs = std::move(inputs), op.codes = codes, op.clamps = clamps;
    return op;
}

// Several operators of one name differ in their types.
std::vector<Operator> operators() {
    constexpr bool CODES = true, CLAMPS = true;
    const Input scale{Role::SCALE, FLOAT}, bias{Role::BIAS, FLOAT}, any_bias{Role::BIAS, FLOAT, true};
    const Input x{Role::X, FLOAT}, w{Role::W, FLOAT}, bytes{Role::W, INT8};
    std::vector<Operator> all{
        make(DOMAIN, "AdderConv", NASHC_ADDER_F32, NASHC_SUM, FLOAT, {x, w}, !CODES, !CLAMPS),
        make(DOMAIN, "ShiftConv", NASHC_MULTIPLY_F32, NASHC_F32, FLOAT, {x, bytes, scale, any_bias}, CODES, !CLAMPS),
        make(FUSED_DOMAIN, "FusedAdderConv", NASHC_ADDER_F32, NASHC_F32, FLOAT, {x, w, scale, bias}, !CODES, CLAMPS),
        make(FUSED_DOMAIN, "FusedShiftConv", NASHC_MULTIPLY_F32, NASHC_F32, FLOAT, {x, bytes, scale, bias}, CODES, CLAMPS),
    };
    for (const Element type : {INT8, UINT8}) {
        const Input q{Role::X, type}, x_zero{Role::X_ZERO, type, true};
        const nashc_op adder = type == INT8 ? NASHC_ADDER_S8 : NASHC_ADDER_U8;
        const nashc_op shift = type == INT8 ? NASHC_MULTIPLY_S8 : NASHC_MULTIPLY_U8;
        all.push_back(make(DOMAIN, "AdderConvInteger", adder, NASHC_SUM, INT32, {q, bytes}, !CODES, !CLAMPS));
        all.push_back(make(DOMAIN, "ShiftConvInteger", shift, NASHC_SUM, INT32, {q, bytes, x_zero}, CODES, !CLAMPS));
        all.push_back(make(FUSED_DOMAIN, "DequantizedAdderConv", adder, NASHC_F32, FLOAT, {q, bytes, scale, bias}, !CODES,
                           CLAMPS));
        all.push_back(make(FUSED_DOMAIN, "DequantizedShiftConv", shift, NASHC_F32, FLOAT, {q, bytes, scale, bias, x_zero},
                           CODES, CLAMPS));
        for (const Element made : {INT8, UINT8}) {
            const Input y_zero{Role::Y_ZERO, made};
            const nashc_output finish = made == INT8 ? NASHC_S8 : NASHC_U8;
            all.push_back(make(FUSED_DOMAIN, "QuantizedAdderConv", adder, finish, made, {q, bytes, scale, bias, y_zero},
                               !CODES, CLAMPS));
            all.push_back(make(FUSED_DOMAIN, "QuantizedShiftConv", shift, finish, made,
                               {q, bytes, scale, bias, y_zero, x_zero}, CODES, CLAMPS));
        }
    }
    return all;
}

// Operators for sessions of so many threads. Sessions refer to them, so they are never freed.
struct Library {
    std::vector<Operator> all = operators();
    std::map<std::string, CustomOpDomain*> domains;

    explicit Library(int32_t threads) {
        for (Operator& op : all) {
            op.threads = threads;
            CustomOpDomain*& domain = domains[op.domain];
            if (!domain) check(api->CreateCustomOpDomain(op.domain, &domain));
            check(api->CustomOpDomain_Add(domain, &op));
        }
    }
};

int32_t threads_of(const SessionOptions* options) {
    char text[16] = "";
    size_t size = sizeof text;
    const long asked = succeeded(api->GetSessionConfigEntry(options, THREADS_KEY, text, &size)) ? std::atol(text) : 0;
    const unsigned cpus = std::thread::hardware_concurrency();
    return static_cast<int32_t>(asked > 0 ? std::min(asked, 1024l) : cpus > 0 ? cpus : 1);
}

void add_operators(SessionOptions* options) {
    static std::mutex guard;
    static std::map<int32_t, Library*> libraries;
    std::lock_guard<std::mutex> one_at_a_time(guard);
    const int32_t threads = threads_of(options);
    Library*& library = libraries[threads];
    if (!library) library = new Library(threads);
    for (const auto& [name, domain] : library->domains) check(api->AddCustomOpDomain(options, domain));
}

}  // namespace
}  // namespace nashc::ort

extern "C" NASHC_API nashc::ort::Status* RegisterCustomOps(nashc::ort::SessionOptions* options,
                                                           const nashc::ort::ApiBase* base) {
    using namespace nashc::ort;
    const void* const* table = base->GetApi(API_VERSION);
    if (!table) {
        const std::string version = base->GetVersionString();
        const std::string message = "nashc needs onnxruntime 1.17 or newer, this is " + version + "; upgrade onnxruntime";
        return create_status_of(base->GetApi(1))(FAIL, message.c_str());
    }
    static const Api found(table);
    static const bool first = (api = &found) != nullptr;  // sessions may be made on several threads
    (void)first;
    return guarded("nashc", [&] { add_operators(options); });
}
