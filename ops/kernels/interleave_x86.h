    // Members of Simd on x86: whole groups of 16 pixels; they return how many pixels are done.
    static int64_t interleave8(const uint8_t* const* channels, uint8_t flip, int64_t count, char* lanes) {
        const __m128i mask = _mm_set1_epi8((char)flip);
        int64_t i = 0;
        for (; i + 16 <= count; i += 16) {
            __m128i c[8], pairs[8], quads[8];
            for (int n = 0; n < 8; n++) c[n] = _mm_xor_si128(_mm_loadu_si128((const __m128i*)(channels[n] + i)), mask);
            for (int n = 0; n < 4; n++) {
                pairs[n] = _mm_unpacklo_epi8(c[2 * n], c[2 * n + 1]);
                pairs[4 + n] = _mm_unpackhi_epi8(c[2 * n], c[2 * n + 1]);
            }
            for (int half = 0; half < 2; half++)
                for (int n = 0; n < 2; n++) {
                    quads[4 * half + 2 * n] = _mm_unpacklo_epi16(pairs[4 * half + 2 * n], pairs[4 * half + 2 * n + 1]);
                    quads[4 * half + 2 * n + 1] = _mm_unpackhi_epi16(pairs[4 * half + 2 * n], pairs[4 * half + 2 * n + 1]);
                }
            __m128i* to = (__m128i*)(lanes + 8 * i);
            for (int half = 0; half < 2; half++)
                for (int n = 0; n < 2; n++) {
                    __m128i low = quads[4 * half + n], high = quads[4 * half + 2 + n];
                    _mm_storeu_si128(to + 4 * half + 2 * n, _mm_unpacklo_epi32(low, high));
                    _mm_storeu_si128(to + 4 * half + 2 * n + 1, _mm_unpackhi_epi32(low, high));
                }
        }
        return i;
    }
    static int64_t interleave4(const uint8_t* const* channels, uint8_t flip, int64_t count, char* lanes) {
        const __m128i mask = _mm_set1_epi8((char)flip);
        int64_t i = 0;
        for (; i + 16 <= count; i += 16) {
            __m128i c[4];
            for (int n = 0; n < 4; n++) c[n] = _mm_xor_si128(_mm_loadu_si128((const __m128i*)(channels[n] + i)), mask);
            __m128i* to = (__m128i*)(lanes + 4 * i);
            __m128i low = _mm_unpacklo_epi8(c[0], c[1]), high = _mm_unpackhi_epi8(c[0], c[1]);
            __m128i low2 = _mm_unpacklo_epi8(c[2], c[3]), high2 = _mm_unpackhi_epi8(c[2], c[3]);
            _mm_storeu_si128(to, _mm_unpacklo_epi16(low, low2));
            _mm_storeu_si128(to + 1, _mm_unpackhi_epi16(low, low2));
            _mm_storeu_si128(to + 2, _mm_unpacklo_epi16(high, high2));
            _mm_storeu_si128(to + 3, _mm_unpackhi_epi16(high, high2));
        }
        return i;
    }
