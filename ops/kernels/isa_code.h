// The kernels for one instruction set, over its `Simd`. Included by isa_*.cpp after Simd is defined, inside their
// anonymous namespace: code that is compiled for a newer machine must never be merged with that of an older one, so
// nothing here uses templates of the standard library.

#define NASHC_UNROLL _Pragma("GCC unroll 8")
#define NASHC_INLINE inline __attribute__((always_inline))

using F = Simd::F;
using I = Simd::I;
constexpr int WORDS = Simd::BYTES / 4;  // 32-bit lanes

constexpr int VECTORS = 2;              // of pixels in a tile; more where sums of 64 bits leave registers free
constexpr int vectors_of(int mode) { return mode == SAD && Simd::BYTES == 64 ? 4 : VECTORS; }

constexpr bool is_float(int mode) { return mode == ADD_F32 || mode == MUL_F32; }
constexpr bool is_adder(int mode) { return mode == ADD_F32 || mode == SAD; }

// ---- from sums to outputs

NASHC_INLINE void store_quantised(const Epilogue& e, F value, char* y) {
    Simd::store_bytes(y, Simd::add32(Simd::round(value), Simd::set32(e.zero_point)));
}

NASHC_INLINE F affine(const Epilogue& e, int row, F sum) {
    // a product and then a sum, never fused: every instruction set rounds alike
    F value = Simd::add(Simd::mul(sum, Simd::set(e.scale[row])), Simd::set(e.bias[row]));
    return Simd::min(Simd::set(e.highest), Simd::max(Simd::set(e.lowest), value));  // NaN stays
}

// One vector of WORDS sums of channel `row` to y.
NASHC_INLINE void finish_float(const Epilogue& e, int row, F sum, char* y) {
    if (e.negate) sum = Simd::neg(sum);
    if (e.output == 0) return Simd::store((float*)y, sum);
    F value = affine(e, row, sum);
    if (e.output == 1) return Simd::store((float*)y, value);
    store_quantised(e, value, y);
}

NASHC_INLINE void finish_integer(const Epilogue& e, int row, I sum, char* y) {
    I offset = Simd::set32(e.offset[row]);
    I total = e.negate ? Simd::sub32(offset, sum) : Simd::add32(offset, sum);
    if (e.output == 0) return Simd::store_i(y, total);
    F value = affine(e, row, Simd::to_float(total));
    if (e.output == 1) return Simd::store((float*)y, value);
    store_quantised(e, value, y);
}

constexpr int size_of_output(int output) { return output <= 1 ? 4 : 1; }

// `vectors` vectors of sums of one channel; the last may be partial.
template <class Value, int COUNT, class Finish>
NASHC_INLINE void finish_row(const Epilogue& e, const Value* sums, char* y, Finish finish) {
    const int size = size_of_output(e.output), full = WORDS * COUNT;
    if (__builtin_expect(e.count >= full, 1)) {
        NASHC_UNROLL for (int v = 0; v < COUNT; v++) finish(sums[v], y + (ptrdiff_t)v * WORDS * size);
        return;
    }
    alignas(64) char kept[COUNT * Simd::BYTES];
    NASHC_UNROLL for (int v = 0; v < COUNT; v++) finish(sums[v], kept + (ptrdiff_t)v * WORDS * size);
    memcpy(y, kept, (size_t)e.count * size);
}

// ---- tiles

inline void pack(const char* planes, int64_t plane_bytes, const int64_t* tap_bytes, int64_t taps, int64_t first,
                 int64_t last, int vectors, const Run* runs, int64_t run_count, char* panel) {
    const char* plane = planes + first / taps * plane_bytes;
    int64_t tap = first % taps;
    bool whole = run_count == vectors;
    for (int64_t r = 0; r < run_count; r++) whole &= runs[r].target_bytes == r * Simd::BYTES;
    const int64_t a = runs[0].source_bytes, b = whole ? runs[1].source_bytes : 0;
    for (int64_t k = first; k < last; k++, panel += vectors * Simd::BYTES) {
        const char* from = plane + tap_bytes[tap];
        if (whole) {
            Simd::store_i(panel, Simd::load_i(from + a));
            Simd::store_i(panel + Simd::BYTES, Simd::load_i(from + b));
            for (int v = 2; v < vectors; v++)
                Simd::store_i(panel + v * Simd::BYTES, Simd::load_i(from + runs[v].source_bytes));
        } else {
            for (int64_t r = 0; r < run_count; r++)
                Simd::store_i(panel + runs[r].target_bytes, Simd::load_i(from + runs[r].source_bytes));
        }
        if (++tap == taps) tap = 0, plane += plane_bytes;
    }
}

// ---- blocks of channels times tiles of pixels

template <int MODE>
NASHC_INLINE I step(I sum, I x, I w) {
    if (MODE == SAD) return Simd::add32(sum, Simd::sad(x, w));
    if (MODE == DOT4) return Simd::dot4(sum, x, w);
    if (MODE == DOT2) return Simd::dot2(sum, x, w);
    return Simd::add32(sum, Simd::mul32(x, w));
}

template <int MODE, int ROWS>
void micro_integer(const char* panel, const char* weights, int64_t steps, char* kept, bool load, const Epilogue* e) {
    constexpr int V = vectors_of(MODE);
    I sums[ROWS][V];
    NASHC_UNROLL for (int r = 0; r < ROWS; r++) NASHC_UNROLL for (int v = 0; v < V; v++)
        sums[r][v] = load ? Simd::load_i(kept + (r * V + v) * Simd::BYTES) : Simd::set32(0);
    for (int64_t k = 0; k < steps; k++) {
        I x[V];
        NASHC_UNROLL for (int v = 0; v < V; v++) x[v] = Simd::load_i(panel + v * Simd::BYTES);
        NASHC_UNROLL for (int r = 0; r < ROWS; r++) {
            I w = LANE_BYTES[MODE] == 8 ? Simd::spread64(weights + r * 8) : Simd::spread32(weights + r * 4);
            NASHC_UNROLL for (int v = 0; v < V; v++) sums[r][v] = step<MODE>(sums[r][v], x[v], w);
        }
        panel += V * Simd::BYTES;
        weights += ROWS * LANE_BYTES[MODE];
    }
    if (!e) {
        NASHC_UNROLL for (int r = 0; r < ROWS; r++) NASHC_UNROLL for (int v = 0; v < V; v++)
            Simd::store_i(kept + (r * V + v) * Simd::BYTES, sums[r][v]);
        return;
    }
    I done[ROWS][V];  // a copy: with the address of `sums` the loop would keep them in memory
    NASHC_UNROLL for (int r = 0; r < ROWS; r++) NASHC_UNROLL for (int v = 0; v < V; v++) done[r][v] = sums[r][v];
    NASHC_UNROLL for (int r = 0; r < ROWS; r++) {
        char* y = e->y + r * e->row_bytes;
        auto finish = [&](I sum, char* at) { finish_integer(*e, r, sum, at); };
        if (MODE == SAD) {
            I narrow[V / 2];
            NASHC_UNROLL for (int v = 0; v < V / 2; v++) narrow[v] = Simd::narrow64(done[r][2 * v], done[r][2 * v + 1]);
            finish_row<I, V / 2>(*e, narrow, y, finish);
        } else {
            finish_row<I, V>(*e, done[r], y, finish);
        }
    }
}

template <int MODE, int ROWS>
void micro_float(const char* panel, const char* weights, int64_t steps, char* kept, bool load, const Epilogue* e) {
    F sums[ROWS][VECTORS];
    const F one = Simd::one();
    NASHC_UNROLL for (int r = 0; r < ROWS; r++) NASHC_UNROLL for (int v = 0; v < VECTORS; v++)
        sums[r][v] = load ? Simd::load((const float*)(kept + (r * VECTORS + v) * Simd::BYTES)) : Simd::set(0);
    const float* x_at = (const float*)panel;
    const float* w_at = (const float*)weights;
    for (int64_t k = 0; k < steps; k++) {
        F x[VECTORS];
        NASHC_UNROLL for (int v = 0; v < VECTORS; v++) x[v] = Simd::load(x_at + v * WORDS);
        NASHC_UNROLL for (int r = 0; r < ROWS; r++) {
            F w = Simd::set(w_at[r]);
            NASHC_UNROLL for (int v = 0; v < VECTORS; v++)
                // times one: the sum moves to the multipliers' ports, and rounds as a sum does
                sums[r][v] = MODE == ADD_F32 ? Simd::fma(Simd::abs(Simd::sub(x[v], w)), one, sums[r][v])
                                             : Simd::fma(x[v], w, sums[r][v]);
        }
        x_at += VECTORS * WORDS;
        w_at += ROWS;
    }
    if (!e) {
        NASHC_UNROLL for (int r = 0; r < ROWS; r++) NASHC_UNROLL for (int v = 0; v < VECTORS; v++)
            Simd::store((float*)(kept + (r * VECTORS + v) * Simd::BYTES), sums[r][v]);
        return;
    }
    F done[ROWS][VECTORS];
    NASHC_UNROLL for (int r = 0; r < ROWS; r++) NASHC_UNROLL for (int v = 0; v < VECTORS; v++) done[r][v] = sums[r][v];
    NASHC_UNROLL for (int r = 0; r < ROWS; r++)
        finish_row<F, VECTORS>(*e, done[r], e->y + r * e->row_bytes,
                               [&](F sum, char* at) { finish_float(*e, r, sum, at); });
}

template <int MODE, int ROWS>
struct Choose {
    static constexpr Micro micro = is_float(MODE) ? micro_float<MODE, ROWS> : micro_integer<MODE, ROWS>;
};

#define NASHC_MICRO(mode)                                                                            \
    {Choose<mode, 1>::micro, Choose<mode, 2>::micro, Choose<mode, 3>::micro, Choose<mode, 4>::micro, \
     Choose<mode, 5>::micro, Choose<mode, 6>::micro, Choose<mode, 7>::micro, Choose<mode, 8>::micro}

// ---- depthwise: one channel, taps of a plane

// All rows, COUNT vectors of sums at a time: sums_at(element of the plane, sums) computes them, `finish` stores one.
template <class Value, int COUNT, class Sums, class Finish>
NASHC_INLINE void depthwise_rows(const Depthwise& layer, Epilogue& e, Sums sums_at, Finish finish) {
    constexpr int WIDE = COUNT * WORDS;
    const int size = size_of_output(e.output);
    char* y = e.y;
    for (int64_t row = 0; row < layer.rows; row++, y += e.row_bytes)
        for (int64_t i = 0; i < layer.columns; i += WIDE) {
            Value sums[COUNT];
            sums_at(row * layer.row_length + i, sums);
            e.count = (int)(layer.columns - i < WIDE ? layer.columns - i : WIDE);
            finish_row<Value, COUNT>(e, sums, y + i * size, finish);
        }
}

// The weights of TAPS taps stay in registers; 0: any number of taps.
template <int MODE, int TAPS>
void depthwise_float_taps(const Depthwise& layer, const char* plane, Epilogue e) {
    constexpr int COUNT = 2;
    const float *x = (const float*)plane, *w = (const float*)layer.weights;
    const int64_t taps = TAPS ? TAPS : layer.taps;
    const F one = Simd::one();
    F weights[TAPS ? TAPS : 1];
    NASHC_UNROLL for (int t = 0; t < TAPS; t++) weights[t] = Simd::set(w[t]);
    auto sums_at = [&](int64_t i, F* done) {
        F sums[COUNT];
        NASHC_UNROLL for (int v = 0; v < COUNT; v++) sums[v] = Simd::set(0);
        NASHC_UNROLL for (int64_t t = 0; t < taps; t++) {
            const float* at = x + i + layer.offsets[t];
            F weight = TAPS ? weights[TAPS ? t : 0] : Simd::set(w[t]);
            NASHC_UNROLL for (int v = 0; v < COUNT; v++) {
                F here = Simd::load(at + v * WORDS);
                sums[v] = MODE == ADD_F32 ? Simd::fma(Simd::abs(Simd::sub(here, weight)), one, sums[v])
                                          : Simd::fma(here, weight, sums[v]);
            }
        }
        NASHC_UNROLL for (int v = 0; v < COUNT; v++) done[v] = sums[v];
    };
    depthwise_rows<F, COUNT>(layer, e, sums_at, [&](F sum, char* at) { finish_float(e, 0, sum, at); });
}

// Differences of at most 383 in unsigned 16-bit sums: at most 171 taps.
template <int TAPS>
void depthwise_add_taps(const Depthwise& layer, const char* plane, Epilogue e) {
    const int16_t *x = (const int16_t*)plane, *w = (const int16_t*)layer.weights;
    const int64_t taps = TAPS ? TAPS : layer.taps;
    I weights[TAPS ? TAPS : 1];
    NASHC_UNROLL for (int t = 0; t < TAPS; t++) weights[t] = Simd::set16(w[t]);
    auto sums_at = [&](int64_t i, I* sums) {
        I sum = Simd::set32(0);
        NASHC_UNROLL for (int64_t t = 0; t < taps; t++) {
            I weight = TAPS ? weights[TAPS ? t : 0] : Simd::set16(w[t]);
            sum = Simd::add16(sum, Simd::abs16(Simd::sub16(Simd::load_i(x + i + layer.offsets[t]), weight)));
        }
        sums[0] = Simd::low_u16(sum), sums[1] = Simd::high_u16(sum);
    };
    depthwise_rows<I, 2>(layer, e, sums_at, [&](I sum, char* at) { finish_integer(e, 0, sum, at); });
}

// Pairs of taps side by side, then two products in one instruction.
template <int TAPS>
void depthwise_mul_taps(const Depthwise& layer, const char* plane, Epilogue e) {
    const int16_t *x = (const int16_t*)plane, *w = (const int16_t*)layer.weights;
    const int64_t taps = TAPS ? TAPS : layer.taps;
    auto pair = [&](int64_t t) {
        return Simd::set32((int32_t)((uint16_t)w[t] | (uint32_t)(uint16_t)(t + 1 < taps ? w[t + 1] : 0) << 16));
    };
    I weights[TAPS / 2 + 1];
    NASHC_UNROLL for (int t = 0; t < TAPS; t += 2) weights[t / 2] = pair(t);
    auto sums_at = [&](int64_t i, I* sums) {
        I low = Simd::set32(0), high = low;
        NASHC_UNROLL for (int64_t t = 0; t < taps; t += 2) {
            I a = Simd::load_i(x + i + layer.offsets[t]);
            I b = t + 1 < taps ? Simd::load_i(x + i + layer.offsets[t + 1]) : Simd::set32(0);
            I weight = TAPS ? weights[TAPS ? t / 2 : 0] : pair(t);
            low = Simd::dot2(low, Simd::unpack_low16(a, b), weight);
            high = Simd::dot2(high, Simd::unpack_high16(a, b), weight);
        }
        Simd::in_order(low, high, sums);
    };
    depthwise_rows<I, 2>(layer, e, sums_at, [&](I sum, char* at) { finish_integer(e, 0, sum, at); });
}

template <int MODE>
void depthwise_float(const Depthwise& layer, const char* plane, Epilogue e) {
    layer.taps == 9 ? depthwise_float_taps<MODE, 9>(layer, plane, e) : depthwise_float_taps<MODE, 0>(layer, plane, e);
}

inline void depthwise_add_s16(const Depthwise& layer, const char* plane, Epilogue e) {
    layer.taps == 9 ? depthwise_add_taps<9>(layer, plane, e) : depthwise_add_taps<0>(layer, plane, e);
}

inline void depthwise_mul_s16(const Depthwise& layer, const char* plane, Epilogue e) {
    layer.taps == 9 ? depthwise_mul_taps<9>(layer, plane, e) : depthwise_mul_taps<0>(layer, plane, e);
}

// ---- the adder's gradient for x

template <int ROWS>
void gradient(const char* panel, const float* weights, int64_t steps, const float* x, float* dx, ptrdiff_t row,
              int64_t count, bool load) {
    F sums[ROWS][VECTORS], here[ROWS][VECTORS];
    alignas(64) float kept[VECTORS * WORDS] = {};
    const bool full = count >= VECTORS * WORDS;
    NASHC_UNROLL for (int r = 0; r < ROWS; r++) {
        const float* from = x + r * row;
        if (!full) memcpy(kept, from, (size_t)count * 4), from = kept;
        NASHC_UNROLL for (int v = 0; v < VECTORS; v++) here[r][v] = Simd::load(from + v * WORDS);
        const float* before = dx + r * row;
        if (!full && load) memcpy(kept, before, (size_t)count * 4), before = kept;
        NASHC_UNROLL for (int v = 0; v < VECTORS; v++) sums[r][v] = load ? Simd::load(before + v * WORDS) : Simd::set(0);
    }
    const F one = Simd::set(1), minus_one = Simd::set(-1);
    const float* dy = (const float*)panel;
    for (int64_t k = 0; k < steps; k++) {
        F g[VECTORS];
        NASHC_UNROLL for (int v = 0; v < VECTORS; v++) g[v] = Simd::load(dy + v * WORDS);
        NASHC_UNROLL for (int r = 0; r < ROWS; r++) {
            F w = Simd::set(weights[r]);
            NASHC_UNROLL for (int v = 0; v < VECTORS; v++) {
                F slope = Simd::max(minus_one, Simd::min(one, Simd::sub(w, here[r][v])));
                sums[r][v] = Simd::fma(slope, g[v], sums[r][v]);
            }
        }
        dy += VECTORS * WORDS;
        weights += ROWS;
    }
    NASHC_UNROLL for (int r = 0; r < ROWS; r++) {
        float* to = full ? dx + r * row : kept;
        NASHC_UNROLL for (int v = 0; v < VECTORS; v++) Simd::store(to + v * WORDS, sums[r][v]);
        if (!full) memcpy(dx + r * row, kept, (size_t)count * 4);
    }
}

inline void depthwise_gradient(const Depthwise& layer, const char* plane, const float* x, float* dx, bool load) {
    constexpr int WIDE = 2;
    const float *dy = (const float*)plane, *w = (const float*)layer.weights;
    const F one = Simd::set(1), minus_one = Simd::set(-1);
    for (int64_t row = 0; row < layer.rows; row++, dy += layer.row_length, x += layer.columns, dx += layer.columns)
        for (int64_t i = 0; i < layer.columns; i += WIDE * WORDS) {
            alignas(64) float near[WIDE * WORDS] = {}, far[WIDE * WORDS] = {};
            const int64_t left = layer.columns - i;
            const bool full = left >= WIDE * WORDS;
            const float *from = x + i, *before = dx + i;
            if (!full) memcpy(near, from, (size_t)left * 4), from = near;
            if (!full && load) memcpy(far, before, (size_t)left * 4), before = far;
            F here[WIDE], sums[WIDE];
            NASHC_UNROLL for (int v = 0; v < WIDE; v++) {
                here[v] = Simd::load(from + v * WORDS);
                sums[v] = load ? Simd::load(before + v * WORDS) : Simd::set(0);
            }
            for (int64_t t = 0; t < layer.taps; t++) {
                const float* at = dy + i + layer.offsets[t];
                const F weight = Simd::set(w[t]);
                NASHC_UNROLL for (int v = 0; v < WIDE; v++) {
                    F slope = Simd::max(minus_one, Simd::min(one, Simd::sub(weight, here[v])));
                    sums[v] = Simd::fma(slope, Simd::load(at + v * WORDS), sums[v]);
                }
            }
            float* to = full ? dx + i : far;
            NASHC_UNROLL for (int v = 0; v < WIDE; v++) Simd::store(to + v * WORDS, sums[v]);
            if (!full) memcpy(dx + i, far, (size_t)left * 4);
        }
}

// ---- bytes of several channels into lanes

inline void interleave8(const uint8_t* const* channels, uint8_t flip, int64_t count, char* lanes) {
    int64_t i = Simd::interleave8(channels, flip, count, lanes);
    for (; i < count; i++)
        for (int c = 0; c < 8; c++) lanes[8 * i + c] = (char)(channels[c][i] ^ flip);
}

inline void interleave4(const uint8_t* const* channels, uint8_t flip, int64_t count, char* lanes) {
    int64_t i = Simd::interleave4(channels, flip, count, lanes);
    for (; i < count; i++)
        for (int c = 0; c < 4; c++) lanes[4 * i + c] = (char)(channels[c][i] ^ flip);
}

inline void interleave2(const uint8_t* const* channels, bool is_signed, int64_t count, char* lanes) {
    int16_t* to = (int16_t*)lanes;
    for (int c = 0; c < 2; c++) {
        const uint8_t* from = channels[c];
        if (is_signed)
            for (int64_t i = 0; i < count; i++) to[2 * i + c] = (int8_t)from[i];
        else
            for (int64_t i = 0; i < count; i++) to[2 * i + c] = from[i];
    }
}

inline void widen_rows(const uint8_t* from, bool is_signed, int64_t rows, int64_t width, int16_t* to, int64_t pitch) {
    for (int64_t row = 0; row < rows; row++, from += width, to += pitch) {
        int64_t i = 0;
        for (; i + 2 * WORDS <= width; i += 2 * WORDS) Simd::store_i(to + i, Simd::widen(from + i, is_signed));
        for (; i < width; i++) to[i] = is_signed ? (int8_t)from[i] : from[i];
    }
}

inline void copy_rows(const float* from, int64_t rows, int64_t width, float* to, int64_t pitch) {
    for (int64_t row = 0; row < rows; row++, from += width, to += pitch) {
        int64_t i = 0;
        for (; i + WORDS <= width; i += WORDS) Simd::store(to + i, Simd::load(from + i));
        for (; i < width; i++) to[i] = from[i];
    }
}

#define NASHC_INSTRUCTION_SET(NAME, LABEL, DOT4_EXACT, ...)                                                       \
    const InstructionSet NAME = {                                                                                 \
        LABEL, supported, Simd::BYTES, DOT4_EXACT,\
        {vectors_of(ADD_F32), vectors_of(SAD), vectors_of(MUL_F32), vectors_of(DOT4), vectors_of(DOT2),\
         vectors_of(MUL32)}, __VA_ARGS__, pack,                                             \
        {NASHC_MICRO(ADD_F32), NASHC_MICRO(SAD), NASHC_MICRO(MUL_F32), NASHC_MICRO(DOT4), NASHC_MICRO(DOT2),      \
         NASHC_MICRO(MUL32)},                                                                                     \
        {gradient<1>, gradient<2>, gradient<3>, gradient<4>, gradient<5>, gradient<6>, gradient<7>, gradient<8>}, \
        depthwise_gradient,                                                                                       \
        depthwise_float<ADD_F32>, depthwise_float<MUL_F32>, depthwise_add_s16, depthwise_mul_s16,                 \
        interleave8, interleave4, interleave2, widen_rows, copy_rows}
