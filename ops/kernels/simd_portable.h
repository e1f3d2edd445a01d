// Simd in the vector extensions of GCC and Clang. Included inside an anonymous namespace, as isa_code.h.
template <class T>
struct Sixteen {
    typedef T Type __attribute__((vector_size(16), aligned(4), may_alias));
};

struct Portable {
    static constexpr int BYTES = 16;
    using F = Sixteen<float>::Type;
    using I = Sixteen<int32_t>::Type;
    using I16 = Sixteen<int16_t>::Type;
    using U16 = Sixteen<uint16_t>::Type;
    using U8 = Sixteen<uint8_t>::Type;
    using I8 = Sixteen<int8_t>::Type;

    static F load(const float* at) { return read<F>(at); }
    static void store(float* at, F a) { memcpy(at, &a, BYTES); }
    static F set(float a) { return F{a, a, a, a}; }
    static F one() { return set(1.0f); }
    static F add(F a, F b) { return a + b; }
    static F sub(F a, F b) { return a - b; }
    static F mul(F a, F b) { return a * b; }
    static F fma(F a, F b, F c) { return a * b + c; }
    static F abs(F a) { return (F)((I)a & 0x7fffffff); }
    static F neg(F a) { return -a; }
    static F min(F a, F b) { return a < b ? a : b; }  // b where one of them is NaN
    static F max(F a, F b) { return a > b ? a : b; }
    static I round(F a) {
        I found;
        for (int i = 0; i < 4; i++) found[i] = (int32_t)lrintf(a[i]);
        return found;
    }
    static F to_float(I a) { return __builtin_convertvector(a, F); }
    static I load_i(const void* at) { return read<I>(at); }
    static void store_i(void* at, I a) { memcpy(at, &a, BYTES); }
    static void store_bytes(char* at, I a) {
        for (int i = 0; i < 4; i++) at[i] = (char)a[i];
    }
    static I set32(int32_t a) { return I{a, a, a, a}; }
    static I set16(int16_t a) { return (I)I16{a, a, a, a, a, a, a, a}; }
    static I spread32(const char* at) { return set32(read<int32_t>(at)); }
    static I spread64(const char* at) {
        typedef int64_t I64 __attribute__((vector_size(16)));
        int64_t a = read<int64_t>(at);
        return (I)I64{a, a};
    }
    // unsigned: sums wrap
    static I add32(I a, I b) { return (I)((U)a + (U)b); }
    static I sub32(I a, I b) { return (I)((U)a - (U)b); }
    static I mul32(I a, I b) { return (I)((U)a * (U)b); }
    static I add16(I a, I b) { return (I)((U16)a + (U16)b); }
    static I sub16(I a, I b) { return (I)((U16)a - (U16)b); }
    static I abs16(I a) {  // of the least value, which lanes beyond a plane may hold, itself
        const U16 negative = (U16)((I16)a < 0);
        return (I)(((U16)a ^ negative) - negative);
    }
    static I sad(I a, I b) {
        U8 x = (U8)a, y = (U8)b, distance = x > y ? x - y : y - x;
        U16 pairs = ((U16)distance & 0xff) + ((U16)distance >> 8);
        U quads = ((U)pairs & 0xffff) + ((U)pairs >> 16);
        return I{(int32_t)(quads[0] + quads[1]), 0, (int32_t)(quads[2] + quads[3]), 0};
    }
    static I dot4(I sum, I x, I w) {
        I16 even_x = (I16)((U16)x & 0xff), odd_x = (I16)((U16)x >> 8);
        I16 even_w = (I16)((U16)w << 8) >> 8, odd_w = (I16)w >> 8;
        return dot2(dot2(sum, (I)even_x, (I)even_w), (I)odd_x, (I)odd_w);
    }
    static I dot2(I sum, I x, I w) {
        I low = mul32((I)((U)x << 16) >> 16, (I)((U)w << 16) >> 16);
        return add32(sum, add32(low, mul32(x >> 16, w >> 16)));
    }
    static I low_u16(I a) { return I{((U16)a)[0], ((U16)a)[1], ((U16)a)[2], ((U16)a)[3]}; }
    static I high_u16(I a) { return I{((U16)a)[4], ((U16)a)[5], ((U16)a)[6], ((U16)a)[7]}; }
    static I unpack_low16(I a, I b) { return pairs16((U16)a, (U16)b, 0); }
    static I unpack_high16(I a, I b) { return pairs16((U16)a, (U16)b, 4); }
    static void in_order(I low, I high, I* sums) { sums[0] = low, sums[1] = high; }
    static I narrow64(I a, I b) { return I{a[0], a[2], b[0], b[2]}; }
    static I widen(const uint8_t* from, bool is_signed) {
        I16 found;
        for (int i = 0; i < 8; i++) found[i] = is_signed ? (int8_t)from[i] : from[i];
        return (I)found;
    }
    static int64_t interleave8(const uint8_t* const*, uint8_t, int64_t, char*) { return 0; }
    static int64_t interleave4(const uint8_t* const*, uint8_t, int64_t, char*) { return 0; }

   private:
    using U = Sixteen<uint32_t>::Type;
    template <class T>
    static T read(const void* at) {
        T found;
        memcpy(&found, at, sizeof found);
        return found;
    }
    static I pairs16(U16 a, U16 b, int from) {
        I found;
        for (int i = 0; i < 4; i++) found[i] = (int32_t)((uint32_t)a[from + i] | (uint32_t)b[from + i] << 16);
        return found;
    }
};
