#include <algorithm>

#include "runtime/context.h"
#include "runtime/device.h"

namespace dw {
namespace cuda {

// Only kernels of one queue use a chunk, and they have been launched when it goes.
Workspace::~Workspace() {
  for (auto& c : chunks_) device_.deallocate(c.base, true);
}

void* Workspace::take(int64_t bytes) {
  const int64_t size = (bytes + 255) / 256 * 256;
  while (chunk_ < chunks_.size() && used_ + size > chunks_[chunk_].bytes) {
    chunk_++;
    used_ = 0;
  }
  if (chunk_ == chunks_.size()) {
    if (fixed_) throw Error("ERR_CUDA", "a captured call asks for more scratch memory than the same call took before");
    const int64_t want = std::max<int64_t>(size, 8 << 20);
    chunks_.push_back({static_cast<char*>(device_.allocate(want)), want});
    used_ = 0;
  }
  void* p = chunks_[chunk_].base + used_;
  used_ += size;
  return p;
}

void Workspace::rewind(std::pair<size_t, int64_t> mark) {
  chunk_ = mark.first;
  used_ = mark.second;
  if (fixed_ || chunk_ != 0 || used_ != 0 || chunks_.size() < 2) return;
  // Empty again, and it took several chunks: next time one will do.
  int64_t total = 0;
  for (auto& c : chunks_) {
    total += c.bytes;
    device_.deallocate(c.base, true);
  }
  chunks_.clear();
  try {
    chunks_.push_back({static_cast<char*>(device_.allocate(total)), total});
  } catch (const Error&) {
    // Then the next call that needs it says so.
  }
}

}  // namespace cuda
}  // namespace dw
