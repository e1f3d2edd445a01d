// The built-in pool: threads that wait for one job at a time.
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "kernels.h"

namespace {

class Pool {
   public:
    ~Pool() { stop(); }

    void resize(size_t threads) {
        std::lock_guard<std::mutex> turn(turn_);
        if (workers_.size() + 1 == threads) return;
        stop();
        stopping_ = false;
        for (size_t i = 1; i < threads; i++) {
            try {
                workers_.emplace_back([this, seen = job_number_.load()] { wait_for_jobs(seen); });
            } catch (const std::exception&) {
                return;  // fewer threads do the same work
            }
        }
    }

    void run(nashc_task task, void* context, size_t count) {
        std::lock_guard<std::mutex> turn(turn_);
        {
            std::lock_guard<std::mutex> lock(mutex_);
            task_ = task, context_ = context, count_ = count;
            next_ = 0;
            busy_ = workers_.size();
            job_number_++;
        }
        wake_.notify_all();
        work();
        // the last worker is usually a moment away: looking is cheaper than sleeping
        for (int i = 0; i < 2000 && busy_.load(std::memory_order_acquire); i++) std::this_thread::yield();
        std::unique_lock<std::mutex> lock(mutex_);
        done_.wait(lock, [this] { return busy_.load() == 0; });
    }

   private:
    void work() {
        for (size_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) task_(context_, i);
    }

    void wait_for_jobs(size_t seen) {
        for (;;) {
            for (int i = 0; i < 200 && job_number_.load(std::memory_order_acquire) == seen; i++) std::this_thread::yield();
            {
                std::unique_lock<std::mutex> lock(mutex_);
                wake_.wait(lock, [&] { return stopping_ || job_number_ != seen; });
                if (stopping_) return;
                seen = job_number_.load();
            }
            work();
            if (busy_.fetch_sub(1, std::memory_order_release) == 1) {
                std::lock_guard<std::mutex> lock(mutex_);
                done_.notify_one();
            }
        }
    }

    void stop() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            stopping_ = true;
        }
        wake_.notify_all();
        for (auto& worker : workers_) worker.join();
        workers_.clear();
    }

    std::vector<std::thread> workers_;
    std::mutex turn_, mutex_;
    std::condition_variable wake_, done_;
    std::atomic<size_t> job_number_{0}, next_{0}, busy_{0};
    bool stopping_ = false;
    nashc_task task_ = nullptr;
    void* context_ = nullptr;
    size_t count_ = 0;
};

Pool* current = nullptr;

Pool& pool() {
    // Never destroyed: at exit its threads may be anywhere. A forked process has none of them, so it begins anew.
    static const bool first = [] {
        current = new Pool;
        pthread_atfork(nullptr, nullptr, [] { current = new Pool; });
        return true;
    }();
    (void)first;
    return *current;
}

}  // namespace

extern "C" void nashc_pool_resize(int32_t threads) { pool().resize((size_t)std::max(1, threads)); }

extern "C" void nashc_pool_run(void*, nashc_task task, void* context, size_t count) {
    pool().run(task, context, count);
}
