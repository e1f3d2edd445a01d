// AVX2 with FMA.
#ifdef __AVX2__
#include <immintrin.h>

#include <cstring>

#include "isa.h"

namespace nashc {
namespace {

struct Simd {
    static constexpr int BYTES = 32;
    using F = __m256;
    using I = __m256i;
    static F load(const float* at) { return _mm256_loadu_ps(at); }
    static void store(float* at, F a) { _mm256_storeu_ps(at, a); }
    static F set(float a) { return _mm256_set1_ps(a); }
    static F one() {
        F found = _mm256_set1_ps(1.0f);
        __asm__("" : "+x"(found));  // keeps the compiler from turning the product with one into a sum
        return found;
    }
    static F add(F a, F b) { return _mm256_add_ps(a, b); }
    static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
    static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
    static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
    static F abs(F a) { return _mm256_and_ps(a, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff))); }
    static F neg(F a) { return _mm256_xor_ps(a, _mm256_set1_ps(-0.0f)); }
    static F min(F a, F b) { return _mm256_min_ps(a, b); }  // b where one of them is NaN
    static F max(F a, F b) { return _mm256_max_ps(a, b); }
    static I round(F a) { return _mm256_cvtps_epi32(a); }
    static F to_float(I a) { return _mm256_cvtepi32_ps(a); }
    static I load_i(const void* at) { return _mm256_loadu_si256((const __m256i*)at); }
    static void store_i(void* at, I a) { _mm256_storeu_si256((__m256i*)at, a); }
    static void store_bytes(char* at, I a) {
        const I lowest = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,  //
                                          0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
        I bytes = _mm256_shuffle_epi8(a, lowest);
        __m128i both = _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
        _mm_storel_epi64((__m128i*)at, both);
    }
    static I set32(int32_t a) { return _mm256_set1_epi32(a); }
    static I set16(int16_t a) { return _mm256_set1_epi16(a); }
    static I spread32(const char* at) { return _mm256_castps_si256(_mm256_broadcast_ss((const float*)at)); }
    static I spread64(const char* at) { return _mm256_castpd_si256(_mm256_broadcast_sd((const double*)at)); }
    static I add32(I a, I b) { return _mm256_add_epi32(a, b); }
    static I sub32(I a, I b) { return _mm256_sub_epi32(a, b); }
    static I mul32(I a, I b) { return _mm256_mullo_epi32(a, b); }
    static I add16(I a, I b) { return _mm256_add_epi16(a, b); }
    static I sub16(I a, I b) { return _mm256_sub_epi16(a, b); }
    static I abs16(I a) { return _mm256_abs_epi16(a); }
    static I sad(I a, I b) { return _mm256_sad_epu8(a, b); }
    static I dot4(I sum, I x, I w) {  // maddubs saturates: only for weights whose pairs stay within 16 bits
        return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(x, w), _mm256_set1_epi16(1)));
    }
    static I dot2(I sum, I x, I w) { return _mm256_add_epi32(sum, _mm256_madd_epi16(x, w)); }
    static I low_u16(I a) { return _mm256_cvtepu16_epi32(_mm256_castsi256_si128(a)); }
    static I high_u16(I a) { return _mm256_cvtepu16_epi32(_mm256_extracti128_si256(a, 1)); }
    static I unpack_low16(I a, I b) { return _mm256_unpacklo_epi16(a, b); }
    static I unpack_high16(I a, I b) { return _mm256_unpackhi_epi16(a, b); }
    static void in_order(I low, I high, I* sums) {  // undoes what the unpacks did to the pixels
        sums[0] = _mm256_permute2x128_si256(low, high, 0x20);
        sums[1] = _mm256_permute2x128_si256(low, high, 0x31);
    }
    static I narrow64(I a, I b) {
        __m256 even = _mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), 0x88);
        return _mm256_permute4x64_epi64(_mm256_castps_si256(even), 0xD8);
    }
    static I widen(const uint8_t* from, bool is_signed) {
        __m128i bytes = _mm_loadu_si128((const __m128i*)from);
        return is_signed ? _mm256_cvtepi8_epi16(bytes) : _mm256_cvtepu8_epi16(bytes);
    }
#include "interleave_x86.h"
};

bool supported() {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

#include "isa_code.h"

}  // namespace

NASHC_INSTRUCTION_SET(AVX2, "avx2", false, {4, 6, 6, 5, 6, 6}, 2);

}  // namespace nashc
#endif
