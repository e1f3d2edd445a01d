// Compile-time proof that ops/kernels/ort_abi.h agrees with an official onnxruntime_c_api.h (version 17 or later).
#include <onnxruntime_c_api.h>

#include <cstddef>

#include "ort_abi.h"

namespace abi = nashc::ort;

static_assert(ORT_API_VERSION >= abi::API_VERSION, "the header is older than what is asked for");

#define CHECK_SLOT(name, number, result, parameters) \
    static_assert(offsetof(OrtApi, name) == sizeof(void*) * (number), "slot of " #name);
NASHC_ORT_SLOTS(CHECK_SLOT)

static_assert(offsetof(OrtApiBase, GetApi) == offsetof(abi::ApiBase, GetApi), "ApiBase");
static_assert(offsetof(OrtApiBase, GetVersionString) == offsetof(abi::ApiBase, GetVersionString), "ApiBase");

#define CHECK_MEMBER(name) \
    static_assert(offsetof(OrtCustomOp, name) == offsetof(abi::CustomOp, name), "offset of " #name);
CHECK_MEMBER(version)
CHECK_MEMBER(CreateKernel)
CHECK_MEMBER(GetName)
CHECK_MEMBER(GetExecutionProviderType)
CHECK_MEMBER(GetInputType)
CHECK_MEMBER(GetInputTypeCount)
CHECK_MEMBER(GetOutputType)
CHECK_MEMBER(GetOutputTypeCount)
CHECK_MEMBER(KernelCompute)
CHECK_MEMBER(KernelDestroy)
CHECK_MEMBER(GetInputCharacteristic)
CHECK_MEMBER(GetOutputCharacteristic)
CHECK_MEMBER(GetInputMemoryType)
CHECK_MEMBER(GetVariadicInputMinArity)
CHECK_MEMBER(GetVariadicInputHomogeneity)
CHECK_MEMBER(GetVariadicOutputMinArity)
CHECK_MEMBER(GetVariadicOutputHomogeneity)
CHECK_MEMBER(CreateKernelV2)
CHECK_MEMBER(KernelComputeV2)
CHECK_MEMBER(InferOutputShapeFn)
CHECK_MEMBER(GetStartVersion)
CHECK_MEMBER(GetEndVersion)

static_assert(ORT_FAIL == int(abi::FAIL) && ORT_INVALID_ARGUMENT == int(abi::INVALID_ARGUMENT), "error codes");
static_assert(ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT == int(abi::FLOAT), "FLOAT");
static_assert(ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 == int(abi::UINT8), "UINT8");
static_assert(ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8 == int(abi::INT8), "INT8");
static_assert(ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32 == int(abi::INT32), "INT32");
static_assert(INPUT_OUTPUT_REQUIRED == int(abi::REQUIRED) && INPUT_OUTPUT_OPTIONAL == int(abi::OPTIONAL), "optional");
static_assert(OrtMemTypeDefault == 0, "the default memory");

// The parameters of every function: each of ours is called with the official arguments, up to the names of the structs.
template <class Ours, class Theirs>
struct SameArity;
template <class... A, class R, class... B, class Q>
struct SameArity<R (*)(A...), Q(ORT_API_CALL*)(B...)> {
    static_assert(sizeof...(A) == sizeof...(B), "number of parameters");
    static_assert(((sizeof(A) == sizeof(B)) && ...), "size of a parameter");
    static constexpr bool value = true;
};
#ifdef __cpp_noexcept_function_type
template <class... A, class R, class... B, class Q>
struct SameArity<R (*)(A...), Q(ORT_API_CALL*)(B...) noexcept> : SameArity<R (*)(A...), Q(ORT_API_CALL*)(B...)> {};
#endif
#define CHECK_PARAMETERS(name, number, result, parameters) \
    static_assert(SameArity<decltype(abi::Api::name), decltype(OrtApi::name)>::value, "parameters of " #name);
NASHC_ORT_SLOTS(CHECK_PARAMETERS)
