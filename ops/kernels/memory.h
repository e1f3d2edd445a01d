// Scratch memory of one thread, kept between calls. Internal.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace nashc {

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
        char* found = bytes >= 0 && bytes < (int64_t)1 << 46 ? memory.get((size_t)bytes) : nullptr;
        if (!found) failed = true;
        return found;
    }
};

}  // namespace nashc
