// The Pareto front of nashc/search/coarse.py:front, compiled: the same columns in the same order.

#include <cstdint>

#define EXPORT extern "C" __attribute__((visibility("default")))

// Columns of `costs` ([columns][rows]), visited in `order`; writes those that no kept one is at most in every row of.
// Returns how many.
EXPORT std::int64_t nashc_front(std::int64_t rows, std::int64_t columns, const double* costs, const std::int64_t* order,
                                std::int64_t* kept) {
    std::int64_t count = 0;
    for (std::int64_t i = 0; i < columns; i++) {
        const double* own = costs + order[i] * rows;
        bool beaten = false;
        for (std::int64_t k = 0; k < count && !beaten; k++) {
            const double* other = costs + kept[k] * rows;
            std::int64_t r = 0;
            while (r < rows && other[r] <= own[r]) r++;
            beaten = r == rows;
        }
        if (!beaten) kept[count++] = order[i];
    }
    return count;
}
