// A GPU: its properties, its memory, and whether it can still be used.
#pragma once
#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/plugin.h"
#include "runtime/error.h"

namespace dw {
namespace cuda {

// How far a queue is. Counts of its calls: begun, handed to the GPU as a whole, known to be done.
struct Clock {
  std::atomic<uint64_t> begun{0}, launched{0}, done{0};
  std::atomic<bool> closed{false};
};

// Every function may be called from any thread, and throws Error once the device is lost.
class Device {
 public:
  // Throws Error(ERR_CUDA): no driver, no such device, one without kernels here.
  explicit Device(int index);
  ~Device();
  Device(const Device&) = delete;

  const cudaDeviceProp& properties() const { return properties_; }
  const std::string& name() const { return name_; }  // "cuda:0"

  // Makes this the calling thread's device.
  void use();
  // The same where something is closed: lost or not, and without a word.
  void enter() const { cudaSetDevice(index_); }
  // Throws what an error means to a user; an error that the context does not survive makes the device lost.
  void check(cudaError_t error, const char* doing);
  bool lost(std::string* why) const;

  // Memory. A block that is given back is handed out again when every queue has done what it had begun by then: no
  // call of CUDA is made for it, and nothing waits.
  void* allocate(int64_t bytes);
  // `queued`: all that uses the block is on the GPU's streams; without it the calls under way may still put more there.
  void deallocate(void* block, bool queued = false);
  void write(void* to, const void* from, int64_t bytes);
  dw_memory_info memory();

  std::shared_ptr<Clock> open_clock();

  // Held while a queue captures: the device may not be waited for as a whole meanwhile.
  std::mutex& capturing() { return capturing_; }

 private:
  struct Pending {
    void* block;
    int64_t bytes;
    bool queued;
    std::vector<std::pair<std::shared_ptr<Clock>, uint64_t>> waits;
  };
  void reap();                  // pending blocks whose time has come become idle
  void* try_allocate(int64_t);  // idle or new; null when memory is full
  void give_back_idle();

  const int index_;
  const std::string name_;
  cudaDeviceProp properties_;
  cudaStream_t copy_ = nullptr;

  std::mutex capturing_;      // taken before the other
  mutable std::mutex mutex_;  // of everything below
  std::unordered_map<void*, int64_t> live_;
  std::multimap<int64_t, void*> idle_;
  std::deque<Pending> pending_;
  std::vector<std::shared_ptr<Clock>> clocks_;
  int64_t held_ = 0, peak_ = 0;
  std::string why_lost_;
  std::atomic<bool> lost_{false};
};

// The devices that this plugin has kernels for.
bool usable(const cudaDeviceProp& properties);

}  // namespace cuda
}  // namespace dw
