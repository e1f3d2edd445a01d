// AVX-512 with F, BW, VL, DQ and VNNI.
#ifdef __AVX512VNNI__
#include <immintrin.h>

#include <cstring>

#include "isa.h"

namespace nashc {
namespace {

struct Simd {
    static constexpr int BYTES = 64;
    using F = __m512;
    using I = __m512i;
    static F load(const float* at) { return _mm512_loadu_ps(at); }
    static void store(float* at, F a) { _mm512_storeu_ps(at, a); }
    static F set(float a) { return _mm512_set1_ps(a); }
    static F one() {
        F found = _mm512_set1_ps(1.0f);
        __asm__("" : "+v"(found));  // keeps the compiler from turning the product with one into a sum
        return found;
    }
    static F add(F a, F b) { return _mm512_add_ps(a, b); }
    static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
    static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
    static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
    static F abs(F a) { return _mm512_and_ps(a, _mm512_castsi512_ps(_mm512_set1_epi32(0x7fffffff))); }
    static F neg(F a) { return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f)); }
    static F min(F a, F b) { return _mm512_min_ps(a, b); }  // b where one of them is NaN
    static F max(F a, F b) { return _mm512_max_ps(a, b); }
    static I round(F a) { return _mm512_cvtps_epi32(a); }
    static F to_float(I a) { return _mm512_cvtepi32_ps(a); }
    static I load_i(const void* at) { return _mm512_loadu_si512(at); }
    static void store_i(void* at, I a) { _mm512_storeu_si512(at, a); }
    static void store_bytes(char* at, I a) { _mm_storeu_si128((__m128i*)at, _mm512_cvtepi32_epi8(a)); }
    static I set32(int32_t a) { return _mm512_set1_epi32(a); }
    static I set16(int16_t a) { return _mm512_set1_epi16(a); }
    static I spread32(const char* at) { return _mm512_castps_si512(_mm512_set1_ps(*(const float*)at)); }
    static I spread64(const char* at) { return _mm512_castpd_si512(_mm512_set1_pd(*(const double*)at)); }
    static I add32(I a, I b) { return _mm512_add_epi32(a, b); }
    static I sub32(I a, I b) { return _mm512_sub_epi32(a, b); }
    static I mul32(I a, I b) { return _mm512_mullo_epi32(a, b); }
    static I add16(I a, I b) { return _mm512_add_epi16(a, b); }
    static I sub16(I a, I b) { return _mm512_sub_epi16(a, b); }
    static I abs16(I a) { return _mm512_abs_epi16(a); }
    static I sad(I a, I b) { return _mm512_sad_epu8(a, b); }
    static I dot4(I sum, I x, I w) { return _mm512_dpbusd_epi32(sum, x, w); }
    static I dot2(I sum, I x, I w) { return _mm512_dpwssd_epi32(sum, x, w); }
    static I low_u16(I a) { return _mm512_cvtepu16_epi32(_mm512_castsi512_si256(a)); }
    static I high_u16(I a) { return _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(a, 1)); }
    static I unpack_low16(I a, I b) { return _mm512_unpacklo_epi16(a, b); }
    static I unpack_high16(I a, I b) { return _mm512_unpackhi_epi16(a, b); }
    static void in_order(I low, I high, I* sums) {  // undoes what the unpacks did to the pixels
        const I first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
        sums[0] = _mm512_permutex2var_epi64(low, first, high);
        sums[1] = _mm512_permutex2var_epi64(low, second, high);
    }
    static I narrow64(I a, I b) {
        const I even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        return _mm512_permutex2var_epi32(a, even, b);
    }
    static I widen(const uint8_t* from, bool is_signed) {
        __m256i bytes = _mm256_loadu_si256((const __m256i*)from);
        return is_signed ? _mm512_cvtepi8_epi16(bytes) : _mm512_cvtepu8_epi16(bytes);
    }
#include "interleave_x86.h"
};

bool supported() {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
}

#include "isa_code.h"

}  // namespace

NASHC_INSTRUCTION_SET(AVX512, "avx512", true, {8, 6, 8, 8, 8, 8}, 6);

}  // namespace nashc
#endif
