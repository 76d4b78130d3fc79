// A small fixed team of threads. The caller takes part; work is handed out by index, so that a result never depends on
// which thread computed it.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace dw {

class ThreadPool {
 public:
  // Throws Error(ERR_OUT_OF_MEMORY) when the system has no more threads.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  int threads() const { return threads_; }

  // Calls body(task) for every task in [0, tasks), each once, on any thread of the team; returns when all are done.
  // An exception in a task is rethrown here after the others have finished.
  template <class Body>
  void each(int64_t tasks, const Body& body) {
    if (tasks <= 0) return;
    if (tasks == 1 || threads_ == 1) {
      for (int64_t i = 0; i < tasks; i++) body(i);
      return;
    }
    run(
        tasks, [](const void* b, int64_t i) { (*static_cast<const Body*>(b))(i); }, &body);
  }

  // Splits [0, n) in one contiguous piece per thread, none smaller than `grain`: body(begin, end).
  template <class Body>
  void split(int64_t n, int64_t grain, const Body& body) {
    if (n <= 0) return;
    int64_t pieces = grain > 0 ? (n + grain - 1) / grain : 1;
    if (pieces > threads_) pieces = threads_;
    each(pieces, [&](int64_t i) { body(n * i / pieces, n * (i + 1) / pieces); });
  }

 private:
  using Task = void (*)(const void*, int64_t);
  void run(int64_t tasks, Task task, const void* body);
  void work();
  void stop();
  void drain();

  const int threads_;
  std::vector<std::thread> team_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<uint64_t> round_{0};
  std::atomic<bool> stop_{false};
  std::atomic<int64_t> next_{0};
  std::atomic<int> busy_{0};
  int64_t tasks_ = 0;
  Task task_ = nullptr;
  const void* body_ = nullptr;
  std::exception_ptr fault_;
};

}  // namespace dw
