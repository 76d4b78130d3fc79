#include <cstring>

#include "core/thread.h"
#include "runtime/launch.cuh"
#include "runtime/reads.h"

namespace dw {
namespace cuda {

struct Landing {  // pinned, and written by the device
  TrapRecord trap;
  unsigned char data[Reads::kMostBytes];
};

// landing = from [bytes], and what kernels have trapped since the read before
__global__ void land_kernel(Landing* landing, TrapRecord* trap, const unsigned char* from, int64_t bytes) {
  for (int64_t i = threadIdx.x; i < bytes; i += blockDim.x) landing->data[i] = from[i];
  if (threadIdx.x == 0) {
    landing->trap = *trap;
    trap->set = 0;
  }
  __threadfence_system();
}

void Reads::open() {
  constexpr const char* doing = "opening reads";
  if (!landings_) {
    void* memory = nullptr;
    device_.check(cudaHostAlloc(&memory, kSlots * sizeof(Landing), cudaHostAllocMapped), doing);
    landings_ = static_cast<Landing*>(memory);
  }
  while (arrived_.size() < kSlots) {
    cudaEvent_t event = nullptr;
    device_.check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), doing);
    arrived_.push_back(event);
  }
  if (!teller_.joinable()) teller_ = start_thread([this] { tell(); });
}

bool Reads::full() {
  std::lock_guard<std::mutex> lock(mutex_);
  return flying_.size() == kSlots;
}

void Reads::begin(Context& context, const void* from, int64_t bytes) {
  open();
  const size_t slot = next_ % kSlots;
  clock_->begun++;
  clock_->launched++;
  launch(context, land_kernel, 1, 128, landings_ + slot, context.trap.record, static_cast<const unsigned char*>(from),
         bytes);
  device_.check(cudaGetLastError(), "reading");
  device_.check(cudaEventRecord(arrived_[slot], context.stream), "reading");
}

void Reads::promise(void* to, int64_t bytes, dw_done done, void* note) {
  const size_t slot = next_++ % kSlots;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    flying_.push_back({landings_ + slot, arrived_[slot], clock_->begun, to, bytes, done, note});
  }
  wake_.notify_one();
}

void Reads::tell() {
  device_.enter();
  for (;;) {
    Read read;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return closing_ || !flying_.empty(); });
      if (flying_.empty()) return;
      read = flying_.front();
    }
    dw_fault fault = {};
    try {
      device_.check(cudaEventSynchronize(read.arrived), "reading");
      uint64_t done = clock_->done.load();
      while (done < read.begun && !clock_->done.compare_exchange_weak(done, read.begun)) {
      }
      throw_trap(read.landing->trap);
      std::memcpy(read.to, read.landing->data, size_t(read.bytes));
    } catch (const Error& e) {
      std::snprintf(fault.code, sizeof fault.code, "%s", e.code);
      std::snprintf(fault.message, sizeof fault.message, "%s", e.what());
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      flying_.pop_front();
    }
    read.done(read.note, fault.code[0] ? &fault : nullptr);
  }
}

void Reads::close() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    closing_ = true;
  }
  wake_.notify_one();
  if (teller_.joinable()) teller_.join();
  for (cudaEvent_t event : arrived_) cudaEventDestroy(event);
  arrived_.clear();
  if (landings_) cudaFreeHost(landings_);
  landings_ = nullptr;
}

}  // namespace cuda
}  // namespace dw
