// Codes of shift weights: 0 is 0, else sign(code) * 2^(1 - |code|).
#include <cmath>

#include "kernels.h"

namespace {

constexpr int MAX_CODE = 15;

template <class Weight, class Term>
int64_t decode(const int8_t* codes, int64_t terms, int64_t count, int largest, Weight* weights, Term term) {
    for (int64_t i = 0; i < count; i++) weights[i] = 0;
    for (int64_t t = 0; t < terms; t++)
        for (int64_t i = 0; i < count; i++) {
            const int code = codes[t * count + i], magnitude = code < 0 ? -code : code;
            if (magnitude > largest) return t * count + i;
            if (code) weights[i] += code < 0 ? -term(magnitude - 1) : term(magnitude - 1);
        }
    return -1;
}

}  // namespace

extern "C" int64_t nashc_decode_shift_f32(const int8_t* codes, int64_t terms, int64_t count, float* weights) {
    return decode(codes, terms, count, MAX_CODE, weights, [](int p) { return std::ldexp(1.0f, -p); });
}

extern "C" int64_t nashc_decode_shift_s32(const int8_t* codes, int64_t terms, int64_t count, int32_t pmax,
                                          int32_t* weights) {
    const int largest = pmax < 0 ? 0 : (pmax >= MAX_CODE ? MAX_CODE : pmax + 1);
    return decode(codes, terms, count, largest, weights, [pmax](int p) { return int32_t{1} << (pmax - p); });
}
