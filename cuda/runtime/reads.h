// Reads that nobody waits for: a kernel copies a few bytes to memory of the host where they stand in the order of the
// calls, and a thread tells when they are there. The queue's thread goes on meanwhile.
#pragma once
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "core/plugin.h"
#include "runtime/context.h"
#include "runtime/device.h"

namespace dw {
namespace cuda {

struct Landing;  // where the bytes of a read arrive

class Reads {
 public:
  static constexpr int64_t kMostBytes = 4 << 10;

  Reads(Device& device, std::shared_ptr<Clock> clock) : device_(device), clock_(std::move(clock)) {}
  Reads(const Reads&) = delete;
  // So many are under way that one more must wait.
  bool full();
  // Puts the copy on the stream, with what kernels have trapped, which is cleared. Throws Error.
  void begin(Context& context, const void* from, int64_t bytes);
  // Who is told of the copy that was begun.
  void promise(void* to, int64_t bytes, dw_done done, void* note);
  // Waits until all are told. Never throws.
  void close();

 private:
  static constexpr size_t kSlots = 64;
  struct Read {
    Landing* landing;
    cudaEvent_t arrived;
    uint64_t begun;  // calls of the queue, with this one
    void* to;
    int64_t bytes;
    dw_done done;
    void* note;
  };
  void open();
  void tell();

  Device& device_;
  const std::shared_ptr<Clock> clock_;
  Landing* landings_ = nullptr;
  std::vector<cudaEvent_t> arrived_;  // of each landing
  size_t next_ = 0;
  std::mutex mutex_;  // of what follows
  std::condition_variable wake_;
  std::deque<Read> flying_;
  bool closing_ = false;
  std::thread teller_;
};

}  // namespace cuda
}  // namespace dw
