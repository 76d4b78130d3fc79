// A queue of kernel calls, run in order by a worker thread on the stream's backend.
#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "core/arena.h"
#include "core/backend.h"

namespace dw {

class Stream {
 public:
  using Job = std::function<void(Backend&)>;

  // Throws Error(ERR_OUT_OF_MEMORY) when the system has no more threads.
  explicit Stream(std::unique_ptr<Backend> backend);
  ~Stream();

  // Queues a job and returns. A job that throws leaves its fault for the next take_fault(); the jobs behind it still
  // run.
  void enqueue(Job job);
  // The first fault since the last call, which clears it. For jobs, on the worker.
  Fault take_fault();
  // Drops what has not begun, waits for what has, ends the threads and the backend, and gives the arena's memory back.
  // Jobs queued later are dropped.
  void stop();
  // Until stop().
  const Backend& backend() const { return *backend_; }
  const std::shared_ptr<Memory>& memory() const { return memory_; }
  Arena& arena() { return arena_; }

 private:
  void work();

  std::unique_ptr<Backend> backend_;
  const std::shared_ptr<Memory> memory_;
  Arena arena_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job> queue_;
  bool stop_ = false;
  Fault fault_;
  std::thread worker_;
};

}  // namespace dw
