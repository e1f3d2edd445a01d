// Scratch memory of one thread, kept between calls. Internal.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace nashc {

constexpr int64_t MOST_BYTES = (int64_t)1 << 46;  // of one allocation: what a file asks for beyond that is refused

// a * b of sizes that a file gives, which may be any; MOST_BYTES where it is no less.
inline int64_t bounded(int64_t a, int64_t b) {
    int64_t product;
    return __builtin_mul_overflow(a, b, &product) || product > MOST_BYTES ? MOST_BYTES : product;
}

class Scratch {
   public:
    Scratch() = default;
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    ~Scratch() { free(memory_); }

    // At least `bytes`, 64-byte aligned; null where there is no memory.
    char* get(size_t bytes) {
        if (bytes > size_) {
            free(memory_);
            size_ = (bytes + 4095) / 4096 * 4096;
            memory_ = static_cast<char*>(aligned_alloc(64, size_));
            if (!memory_) size_ = 0;
        }
        return memory_;
    }

   private:
    char* memory_ = nullptr;
    size_t size_ = 0;
};

// Of the tasks of one call: whether memory ran out in any of them, which then did nothing.
struct Allocations {
    std::atomic<bool> failed{false};

    char* allocate(Scratch& memory, int64_t bytes) {
        char* found = bytes >= 0 && bytes < MOST_BYTES ? memory.get((size_t)bytes) : nullptr;
        if (!found) failed = true;
        return found;
    }
};

}  // namespace nashc
