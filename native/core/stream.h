// A queue of kernel calls, run in order on a worker thread with a team of its own.
#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "core/arena.h"
#include "core/op.h"

namespace dw {

struct Fault {
  std::string code;
  std::string message;
  bool any() const { return !code.empty(); }
};

class Stream {
 public:
  using Job = std::function<void(Context&)>;

  explicit Stream(int threads);
  ~Stream();

  // Queues a job and returns. A job that throws leaves its fault for the next take_fault(); the jobs behind it still
  // run.
  void enqueue(Job job);
  // The first fault since the last call, which clears it. For jobs, on the worker.
  Fault take_fault();
  // Drops what has not begun, waits for what has, ends the threads. Jobs queued later are dropped.
  void stop();
  int threads() const { return threads_; }
  Arena& arena() { return arena_; }

 private:
  void work();

  const int threads_;
  Arena arena_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job> queue_;
  bool stop_ = false;
  Fault fault_;
  std::thread worker_;
};

}  // namespace dw
