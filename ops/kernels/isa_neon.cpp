// AArch64, where NEON is always there.
#ifdef __aarch64__
#include <arm_neon.h>

#include <cmath>
#include <cstring>

#include "isa.h"

namespace nashc {
namespace {

#include "simd_portable.h"

struct Simd : Portable {
    static F fma(F a, F b, F c) { return (F)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
    static I round(F a) { return (I)vcvtnq_s32_f32((float32x4_t)a); }
    static I sad(I a, I b) {
        return (I)vpaddlq_u32(vpaddlq_u16(vpaddlq_u8(vabdq_u8((uint8x16_t)a, (uint8x16_t)b))));
    }
    static I dot2(I sum, I x, I w) {
        int32x4_t low = vmull_s16(vget_low_s16((int16x8_t)x), vget_low_s16((int16x8_t)w));
        int32x4_t high = vmull_high_s16((int16x8_t)x, (int16x8_t)w);
        return (I)vaddq_s32((int32x4_t)sum, vpaddq_s32(low, high));
    }
    static I dot4(I sum, I x, I w) {  // u8 x s8 within 16 bits, then pairs and pairs of pairs
        int16x8_t low = vmulq_s16((int16x8_t)vmovl_u8(vget_low_u8((uint8x16_t)x)), vmovl_s8(vget_low_s8((int8x16_t)w)));
        int16x8_t high = vmulq_s16((int16x8_t)vmovl_high_u8((uint8x16_t)x), vmovl_high_s8((int8x16_t)w));
        return (I)vaddq_s32((int32x4_t)sum, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
    }
    static I low_u16(I a) { return (I)vmovl_u16(vget_low_u16((uint16x8_t)a)); }
    static I high_u16(I a) { return (I)vmovl_high_u16((uint16x8_t)a); }
    static I unpack_low16(I a, I b) { return (I)vzip1q_s16((int16x8_t)a, (int16x8_t)b); }
    static I unpack_high16(I a, I b) { return (I)vzip2q_s16((int16x8_t)a, (int16x8_t)b); }
    static I abs16(I a) { return (I)vabsq_s16((int16x8_t)a); }
};

bool supported() { return true; }

#include "isa_code.h"

}  // namespace

NASHC_INSTRUCTION_SET(NEON, "neon", true, {6, 6, 6, 6, 6, 6}, 3);

}  // namespace nashc
#endif
