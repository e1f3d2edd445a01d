// The part of onnxruntime's C ABI that a library of custom operators needs, declared anew: its wheels ship no headers.
//
// OrtApi is a table of function pointers that only grows, so a slot keeps its number for good. .ci/abi compares every
// slot and offset with the official header (tests/ops/abi/slots_check.cpp).
#pragma once
#include <cstddef>
#include <cstdint>

namespace nashc::ort {

struct Status;
struct SessionOptions;
struct CustomOpDomain;
struct KernelInfo;
struct KernelContext;
struct Value;
struct TensorInfo;
struct CustomOp;

struct ApiBase {
    const void* const* (*GetApi)(uint32_t version);
    const char* (*GetVersionString)();
};

// The first version with all slots below, that of onnxruntime 1.17; every later one still serves it.
constexpr uint32_t API_VERSION = 17;

enum ErrorCode : int { FAIL = 1, INVALID_ARGUMENT = 2 };
enum Element : int { FLOAT = 1, UINT8 = 2, INT8 = 3, INT32 = 6 };
enum Characteristic : int { REQUIRED = 0, OPTIONAL = 1 };
using Task = void (*)(void* user, size_t index);

// name, number, result, parameters
#define NASHC_ORT_SLOTS(SLOT)                                                                                        \
    SLOT(CreateStatus, 0, Status*, (int code, const char* message))                                                  \
    SLOT(CreateCustomOpDomain, 26, Status*, (const char* name, CustomOpDomain** domain))                             \
    SLOT(CustomOpDomain_Add, 27, Status*, (CustomOpDomain * domain, const CustomOp* op))                             \
    SLOT(AddCustomOpDomain, 28, Status*, (SessionOptions * options, CustomOpDomain * domain))                        \
    SLOT(GetTensorMutableData, 51, Status*, (Value * value, void** data))                                            \
    SLOT(GetDimensionsCount, 61, Status*, (const TensorInfo* info, size_t* count))                                   \
    SLOT(GetDimensions, 62, Status*, (const TensorInfo* info, int64_t* sizes, size_t count))                         \
    SLOT(GetTensorTypeAndShape, 65, Status*, (const Value* value, TensorInfo** info))                                \
    SLOT(KernelInfoGetAttribute_float, 85, Status*, (const KernelInfo* info, const char* name, float* value))        \
    SLOT(KernelInfoGetAttribute_int64, 86, Status*, (const KernelInfo* info, const char* name, int64_t* value))      \
    SLOT(KernelInfoGetAttribute_string, 87, Status*,                                                                 \
         (const KernelInfo* info, const char* name, char* text, size_t* size))                                       \
    SLOT(KernelContext_GetInputCount, 88, Status*, (const KernelContext* context, size_t* count))                    \
    SLOT(KernelContext_GetInput, 90, Status*, (const KernelContext* context, size_t index, const Value** value))     \
    SLOT(KernelContext_GetOutput, 91, Status*,                                                                       \
         (KernelContext * context, size_t index, const int64_t* sizes, size_t count, Value** value))                 \
    SLOT(ReleaseStatus, 93, void, (Status * status))                                                                 \
    SLOT(ReleaseTensorTypeAndShapeInfo, 99, void, (TensorInfo * info))                                               \
    SLOT(KernelInfoGetAttributeArray_float, 162, Status*,                                                            \
         (const KernelInfo* info, const char* name, float* values, size_t* count))                                   \
    SLOT(KernelInfoGetAttributeArray_int64, 163, Status*,                                                            \
         (const KernelInfo* info, const char* name, int64_t* values, size_t* count))                                 \
    SLOT(KernelInfo_GetInputCount, 230, Status*, (const KernelInfo* info, size_t* count))                            \
    SLOT(KernelInfo_GetInputName, 232, Status*, (const KernelInfo* info, size_t index, char* name, size_t* size))    \
    SLOT(GetSessionConfigEntry, 238, Status*,                                                                        \
         (const SessionOptions* options, const char* key, char* value, size_t* size))                                \
    SLOT(KernelInfo_GetNodeName, 244, Status*, (const KernelInfo* info, char* name, size_t* size))                   \
    SLOT(KernelInfoGetConstantInput_tensor, 249, Status*,                                                            \
         (const KernelInfo* info, size_t index, int* is_constant, const Value** value))                              \
    SLOT(KernelContext_ParallelFor, 274, Status*,                                                                    \
         (const KernelContext* context, Task task, size_t count, size_t batches, void* user))

struct Api {
    explicit Api(const void* const* table)
        :
#define NASHC_ORT_FILL(name, number, result, parameters) \
    name(reinterpret_cast<result(*) parameters>(const_cast<void*>(table[number]))),
          NASHC_ORT_SLOTS(NASHC_ORT_FILL)
#undef NASHC_ORT_FILL
              table(table) {
    }

#define NASHC_ORT_MEMBER(name, number, result, parameters) result(*name) parameters;
    NASHC_ORT_SLOTS(NASHC_ORT_MEMBER)
#undef NASHC_ORT_MEMBER
    const void* const* table;
};

// The function that an onnxruntime too old for an Api has as well.
inline Status* (*create_status_of(const void* const* table))(int, const char*) {
    return reinterpret_cast<Status* (*)(int, const char*)>(const_cast<void*>(table[0]));
}

// As of API_VERSION: onnxruntime does not read the members after these (GetMayInplace, ...) of an older operator.
struct CustomOp {
    uint32_t version;
    void* (*CreateKernel)(const CustomOp*, const void* api, const KernelInfo*);
    const char* (*GetName)(const CustomOp*);
    const char* (*GetExecutionProviderType)(const CustomOp*);
    int (*GetInputType)(const CustomOp*, size_t);
    size_t (*GetInputTypeCount)(const CustomOp*);
    int (*GetOutputType)(const CustomOp*, size_t);
    size_t (*GetOutputTypeCount)(const CustomOp*);
    void (*KernelCompute)(void*, KernelContext*);
    void (*KernelDestroy)(void*);
    int (*GetInputCharacteristic)(const CustomOp*, size_t);
    int (*GetOutputCharacteristic)(const CustomOp*, size_t);
    int (*GetInputMemoryType)(const CustomOp*, size_t);
    int (*GetVariadicInputMinArity)(const CustomOp*);
    int (*GetVariadicInputHomogeneity)(const CustomOp*);
    int (*GetVariadicOutputMinArity)(const CustomOp*);
    int (*GetVariadicOutputHomogeneity)(const CustomOp*);
    Status* (*CreateKernelV2)(const CustomOp*, const void* api, const KernelInfo*, void** kernel);
    Status* (*KernelComputeV2)(void*, KernelContext*);
    Status* (*InferOutputShapeFn)(const CustomOp*, void*);
    int (*GetStartVersion)(const CustomOp*);
    int (*GetEndVersion)(const CustomOp*);
};

}  // namespace nashc::ort
