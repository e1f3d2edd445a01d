// Scratch memory of one thread, kept between calls. Internal.
#pragma once
#include <cstddef>
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

}  // namespace nashc
