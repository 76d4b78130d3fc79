#include "core/stream.h"

#include "core/thread.h"

namespace dw {

Stream::Stream(std::unique_ptr<Backend> backend)
    : backend_(std::move(backend)),
      memory_(backend_->memory()),
      arena_(memory_),
      worker_(start_thread([this] { work(); })) {}

Stream::~Stream() { stop(); }

void Stream::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
    queue_.clear();
  }
  wake_.notify_all();
  if (worker_.joinable()) worker_.join();
  backend_.reset();
  arena_.release();
}

void Stream::enqueue(Job job) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stop_) return;
    queue_.push_back(std::move(job));
  }
  wake_.notify_one();
}

Fault Stream::take_fault() {
  Fault f = std::move(fault_);
  fault_ = Fault();
  return f;
}

void Stream::work() {
  for (;;) {
    Job job;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return stop_ || !queue_.empty(); });
      if (stop_) return;
      job = std::move(queue_.front());
      queue_.pop_front();
    }
    Fault fault;
    try {
      job(*backend_);
    } catch (...) {
      fault = caught("a kernel ran");
    }
    if (fault.any() && !fault_.any()) fault_ = std::move(fault);
  }
}

}  // namespace dw
