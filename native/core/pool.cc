#include "core/pool.h"

#include "core/thread.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define DW_PAUSE() _mm_pause()
#else
#define DW_PAUSE() ((void)0)
#endif

namespace dw {

// Kernels follow each other within microseconds in a step; a thread that sleeps costs more than one that waits that
// long.
constexpr int kSpins = 4000;

ThreadPool::ThreadPool(int threads) : threads_(threads < 1 ? 1 : threads) {
  try {
    for (int i = 1; i < threads_; i++) team_.push_back(start_thread([this] { work(); }));
  } catch (...) {
    stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (auto& t : team_) t.join();
}

void ThreadPool::drain() {
  for (;;) {
    int64_t i = next_.fetch_add(1, std::memory_order_relaxed);
    if (i >= tasks_) return;
    try {
      task_(body_, i);
    } catch (...) {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!fault_) fault_ = std::current_exception();
    }
  }
}

void ThreadPool::run(int64_t tasks, Task task, const void* body) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    tasks_ = tasks;
    task_ = task;
    body_ = body;
    fault_ = nullptr;
    next_.store(0, std::memory_order_relaxed);
    busy_.store(threads_ - 1, std::memory_order_relaxed);
    round_.fetch_add(1, std::memory_order_release);
  }
  wake_.notify_all();
  drain();
  for (int spin = 0; busy_.load(std::memory_order_acquire) != 0; spin++) {
    if (spin < kSpins)
      DW_PAUSE();
    else
      std::this_thread::yield();
  }
  if (fault_) std::rethrow_exception(fault_);
}

void ThreadPool::work() {
  uint64_t seen = 0;
  for (;;) {
    int spin = 0;
    while (round_.load(std::memory_order_acquire) == seen && !stop_ && spin++ < kSpins) DW_PAUSE();
    if (round_.load(std::memory_order_acquire) == seen) {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return stop_ || round_.load(std::memory_order_relaxed) != seen; });
    }
    if (stop_) return;
    seen++;
    drain();
    busy_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace dw
