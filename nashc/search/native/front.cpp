// The Pareto front of nashc/search/coarse.py:front, compiled: the same columns in the same order.

#include <cstdint>
#include <new>
#include <utility>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

// Columns of `costs` ([columns][rows]), visited in `order`; writes those that no kept one is at most in every row of.
// Returns how many; -2 if out of memory.
EXPORT std::int64_t nashc_front(std::int64_t rows, std::int64_t columns, const double* costs, const std::int64_t* order,
                                std::int64_t* kept) try {
    std::int64_t count = 0;
    std::vector<const double*> others;  // the kept ones; who beats a column moves up, as it is likely to beat the next
    for (std::int64_t i = 0; i < columns; i++) {
        const double* own = costs + order[i] * rows;
        bool beaten = false;
        for (std::size_t k = 0; k < others.size() && !beaten; k++) {
            const double* other = others[k];
            std::int64_t r = 0;
            while (r < rows && other[r] <= own[r]) r++;
            beaten = r == rows;
            if (beaten) std::swap(others[k], others[k / 2]);
        }
        if (beaten) continue;
        kept[count++] = order[i];
        others.push_back(own);
    }
    return count;
} catch (const std::bad_alloc&) {
    return -2;
}
