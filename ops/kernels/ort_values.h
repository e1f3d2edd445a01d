// Tensors, attributes and errors of onnxruntime, read through its C ABI. Internal to the adapter.
#pragma once
#include <exception>
#include <new>
#include <optional>
#include <string>

#include "ort_abi.h"
#include "ort_geometry.h"

namespace nashc::ort {

inline const Api* api = nullptr;  // set once, before any operator exists

// An error of onnxruntime on its way back to it.
struct Failure {
    Status* status;
};

inline void check(Status* status) {
    if (status) throw Failure{status};
}

inline bool succeeded(Status* status) {
    if (status) api->ReleaseStatus(status);
    return !status;
}

struct Tensor {
    const void* data = nullptr;  // NULL: the input is absent
    Sizes shape;

    explicit operator bool() const { return data != nullptr; }
    int64_t count() const {
        int64_t product = 1;
        for (int64_t size : shape) product *= size;
        return product;
    }
    template <class T>
    const T* as() const {
        return static_cast<const T*>(data);
    }
};

inline Tensor tensor_of(const Value* value) {
    Tensor found;
    if (!value) return found;
    TensorInfo* info = nullptr;
    check(api->GetTensorTypeAndShape(value, &info));
    size_t rank = 0;
    const bool known = succeeded(api->GetDimensionsCount(info, &rank));
    found.shape.resize(rank);
    const bool read = known && succeeded(api->GetDimensions(info, found.shape.data(), rank));
    api->ReleaseTensorTypeAndShapeInfo(info);
    if (!read) throw Refusal{"an input has no shape"};
    void* data = nullptr;
    check(api->GetTensorMutableData(const_cast<Value*>(value), &data));
    static const char nothing = 0;  // a tensor without elements may have no memory, but is not absent
    found.data = data ? data : &nothing;
    return found;
}

// Attributes of a node. onnxruntime says only that one could not be read, so a refusal asks for the other types too.
class Attributes {
    const KernelInfo* info;

    [[noreturn]] static void wrong(const char* name, const char* wanted) {
        throw Refusal{"attribute " + std::string(name) + " has the wrong type; give " + wanted};
    }
    bool given(const char* name) const {
        float f;
        int64_t i;
        size_t floats = 0, ints = 0, characters = 0;
        return succeeded(api->KernelInfoGetAttribute_int64(info, name, &i)) ||
               succeeded(api->KernelInfoGetAttribute_float(info, name, &f)) ||
               succeeded(api->KernelInfoGetAttribute_string(info, name, nullptr, &characters)) ||
               (succeeded(api->KernelInfoGetAttributeArray_int64(info, name, nullptr, &ints)) && ints) ||
               (succeeded(api->KernelInfoGetAttributeArray_float(info, name, nullptr, &floats)) && floats);
    }

   public:
    explicit Attributes(const KernelInfo* info) : info(info) {}

    int64_t integer(const char* name, int64_t fallback) const {
        int64_t value = 0;
        if (succeeded(api->KernelInfoGetAttribute_int64(info, name, &value))) return value;
        if (given(name)) wrong(name, "an integer");
        return fallback;
    }
    float number(const char* name, float fallback) const {
        float value = 0;
        if (succeeded(api->KernelInfoGetAttribute_float(info, name, &value))) return value;
        if (given(name)) wrong(name, "a float");
        return fallback;
    }
    std::string text(const char* name, const char* fallback) const {
        size_t size = 0;
        if (succeeded(api->KernelInfoGetAttribute_string(info, name, nullptr, &size))) {
            std::string value(size, '\0');
            check(api->KernelInfoGetAttribute_string(info, name, value.data(), &size));
            value.resize(value.find('\0') == std::string::npos ? size : value.find('\0'));
            return value;
        }
        if (given(name)) wrong(name, "text");
        return fallback;
    }
    std::optional<Sizes> integers(const char* name) const {
        size_t count = 0;
        if (succeeded(api->KernelInfoGetAttributeArray_int64(info, name, nullptr, &count))) {
            if (!count && given(name)) wrong(name, "integers");  // of another type: read as no integers at all
            Sizes values(count);
            if (count) check(api->KernelInfoGetAttributeArray_int64(info, name, values.data(), &count));
            return values;
        }
        if (given(name)) wrong(name, "integers");
        return std::nullopt;
    }
};

inline Status* refuse(const std::string& place, const std::string& what) {
    return api->CreateStatus(INVALID_ARGUMENT, (place + ": " + what).c_str());
}

// Nothing thrown in `work` gets through.
template <class Work>
Status* guarded(const std::string& place, const Work& work) noexcept {
    try {
        work();
    } catch (const Failure& failure) {
        return failure.status;
    } catch (const Refusal& refusal) {
        return refuse(place, refusal.what);
    } catch (const std::bad_alloc&) {
        return api->CreateStatus(FAIL, "nashc: out of memory");
    } catch (const std::exception& error) {
        return api->CreateStatus(FAIL, error.what());
    } catch (...) {
        return api->CreateStatus(FAIL, "nashc: unknown failure");
    }
    return nullptr;
}

}  // namespace nashc::ort
