// TurnLock: a mutex that tells a thread which already holds it so, instead of waiting for itself. A trainer holds its program's
// lock while a loss of the caller's own runs, and that may try to run the model.
#pragma once

#include <atomic>
#include <mutex>
#include <stdexcept>
#include <thread>

namespace trainstep {

class TurnLock {
  public:
    void lock() {
        if (holder_.load(std::memory_order_relaxed) == std::this_thread::get_id())
            throw std::runtime_error("the model is in the middle of a step: a loss of one's own cannot run it");
        mutex_.lock();
        holder_.store(std::this_thread::get_id(), std::memory_order_relaxed);
    }
    void unlock() {
        holder_.store(std::thread::id(), std::memory_order_relaxed);
        mutex_.unlock();
    }

  private:
    std::mutex mutex_;
    std::atomic<std::thread::id> holder_{};  // only a thread's own id matters to it
};

}  // namespace trainstep
