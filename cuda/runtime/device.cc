#include "runtime/device.h"

#include <algorithm>

namespace dw {
namespace cuda {

bool usable(const cudaDeviceProp& p) { return p.major >= 8; }

static std::string mebibytes(int64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

Device::Device(int index) : index_(index), name_("cuda:" + std::to_string(index)) {
  int count = 0;
  const std::string problem = driver_problem(&count);
  if (!problem.empty()) throw Error("ERR_CUDA", name_ + ": " + problem);
  if (index < 0 || index >= count)
    throw Error("ERR_CUDA", name_ + ": no such device; this machine has " + std::to_string(count) + ", counted from 0");
  check(cudaGetDeviceProperties(&properties_, index), "reading its properties");
  if (!usable(properties_))
    throw Error("ERR_CUDA", name_ + ": " + properties_.name + " has compute capability " +
                                std::to_string(properties_.major) + "." + std::to_string(properties_.minor) +
                                "; 8.0 or later is needed");
  use();
  check(cudaStreamCreateWithFlags(&copy_, cudaStreamNonBlocking), "opening it");
}

Device::~Device() {
  if (cudaSetDevice(index_) != cudaSuccess) return;
  give_back_idle();
  for (auto& p : pending_) cudaFree(p.block);
  for (auto& b : live_) cudaFree(b.first);
  cudaStreamDestroy(copy_);
}

bool Device::lost(std::string* why) const {
  if (!lost_.load(std::memory_order_acquire)) return false;
  std::lock_guard<std::mutex> lock(mutex_);
  *why = why_lost_;
  return true;
}

void Device::use() {
  std::string why;
  if (lost(&why))
    throw Error("ERR_CUDA", name_ + " was lost by an earlier error, and this process cannot use it again: " + why);
  check(cudaSetDevice(index_), "choosing it");
}

void Device::check(cudaError_t error, const char* doing) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // an error that is not sticky is cleared
  const std::string what = std::string(doing) + ": " + cudaGetErrorString(error);
  if (error == cudaErrorMemoryAllocation) throw Error("ERR_OUT_OF_MEMORY", name_ + ": " + what);
  if (!is_fatal(error)) throw Error("ERR_CUDA", name_ + ": " + what);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (why_lost_.empty()) why_lost_ = what;
  }
  lost_.store(true, std::memory_order_release);
  throw Error("ERR_CUDA",
              name_ + ": " + what + " (in this call or one queued before it). The device is lost to this process");
}

std::shared_ptr<Clock> Device::open_clock() {
  auto clock = std::make_shared<Clock>();
  std::lock_guard<std::mutex> lock(mutex_);
  clocks_.erase(std::remove_if(clocks_.begin(), clocks_.end(), [](auto& c) { return c->closed.load(); }),
                clocks_.end());
  clocks_.push_back(clock);
  return clock;
}

void Device::reap() {
  for (auto p = pending_.begin(); p != pending_.end();) {
    const bool done = std::all_of(p->waits.begin(), p->waits.end(),
                                  [](auto& w) { return w.first->closed.load() || w.first->done.load() >= w.second; });
    if (done) idle_.emplace(p->bytes, p->block);
    p = done ? pending_.erase(p) : std::next(p);
  }
}

void* Device::try_allocate(int64_t bytes) {
  const auto idle = idle_.lower_bound(bytes);
  if (idle != idle_.end() && idle->first <= bytes + bytes / 4) {
    void* block = idle->second;
    live_[block] = idle->first;
    idle_.erase(idle);
    return block;
  }
  void* block = nullptr;
  const cudaError_t error = cudaMalloc(&block, size_t(bytes));
  if (error == cudaSuccess) {
    live_[block] = bytes;
    held_ += bytes;
    peak_ = std::max(peak_, held_);
    return block;
  }
  cudaGetLastError();
  if (error == cudaErrorMemoryAllocation) return nullptr;
  // Some earlier call's error: check() would lock again.
  throw error;
}

void Device::give_back_idle() {
  for (auto& b : idle_)
    if (cudaFree(b.second) == cudaSuccess) held_ -= b.first;
  idle_.clear();
}

void* Device::allocate(int64_t bytes) {
  use();
  bytes = std::max<int64_t>(512, (bytes + 511) / 512 * 512);
  try {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      reap();
      if (void* block = try_allocate(bytes)) return block;
      give_back_idle();
      if (void* block = try_allocate(bytes)) return block;
    }
    std::lock_guard<std::mutex> nobody_captures(capturing_);
    std::lock_guard<std::mutex> lock(mutex_);
    // What queues still work on may come free.
    std::vector<uint64_t> launched;
    for (auto& c : clocks_) launched.push_back(c->launched.load());
    const cudaError_t error = cudaDeviceSynchronize();
    if (error != cudaSuccess) throw error;
    for (size_t i = 0; i < clocks_.size(); i++) {
      uint64_t done = clocks_[i]->done.load();
      while (done < launched[i] && !clocks_[i]->done.compare_exchange_weak(done, launched[i])) {
      }
    }
    // A call that asks for memory in its middle is not done, but what it has given back is no longer used.
    for (auto& p : pending_)
      if (p.queued) p.waits.clear();
    reap();
    give_back_idle();
    if (void* block = try_allocate(bytes)) return block;
  } catch (cudaError_t error) {
    check(error, "allocating memory");
  }
  const dw_memory_info info = memory();
  throw Error("ERR_OUT_OF_MEMORY", name_ + ": cannot allocate " + mebibytes(bytes) + ": " + mebibytes(info.available) +
                                       " of " + mebibytes(info.total) + " are free, and this process holds " +
                                       mebibytes(info.held));
}

void Device::deallocate(void* block, bool queued) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto it = live_.find(block);
  if (it == live_.end()) return;
  Pending p{block, it->second, queued, {}};
  live_.erase(it);
  for (auto& c : clocks_)
    if (!c->closed.load() && c->done.load() < c->begun.load()) p.waits.emplace_back(c, c->begun.load());
  pending_.push_back(std::move(p));
}

void Device::write(void* to, const void* from, int64_t bytes) {
  if (bytes == 0) return;
  use();
  check(cudaMemcpyAsync(to, from, size_t(bytes), cudaMemcpyHostToDevice, copy_), "writing a tensor");
  check(cudaStreamSynchronize(copy_), "writing a tensor");
}

dw_memory_info Device::memory() {
  use();
  size_t available = 0, total = 0;
  check(cudaMemGetInfo(&available, &total), "reading how much memory is free");
  std::lock_guard<std::mutex> lock(mutex_);
  return {int64_t(total), int64_t(available), held_, peak_};
}

}  // namespace cuda
}  // namespace dw
