#include "core/context.h"
#include "core/error.h"
#include "core/memory.h"
#include "core/shape.h"

// Under AddressSanitizer nobody may touch what has not been taken, nor the bytes between two that have been.
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes) ((void)0)
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)0)
#endif

namespace dw {

#if defined(__SANITIZE_ADDRESS__)
constexpr int64_t kBetween = 64;
#else
constexpr int64_t kBetween = 0;
#endif

Workspace::Chunk::Chunk(int64_t size) : base(static_cast<char*>(allocate(size))), bytes(size) {
  ASAN_POISON_MEMORY_REGION(base, size_t(bytes));
}

void Workspace::Chunk::free() {
  ASAN_UNPOISON_MEMORY_REGION(base, size_t(bytes));
  deallocate(base);
}

Workspace::~Workspace() {
  for (auto& c : chunks_) c.free();
}

void Workspace::rewind(std::pair<size_t, int64_t> m) {
  chunk_ = m.first;
  used_ = m.second;
  for (size_t i = chunk_; i < chunks_.size(); i++) {
    [[maybe_unused]] const int64_t kept = i == chunk_ ? used_ : 0;
    ASAN_POISON_MEMORY_REGION(chunks_[i].base + kept, size_t(chunks_[i].bytes - kept));
  }
  if (chunk_ != 0 || used_ != 0 || chunks_.size() < 2) return;
  // Empty again, and it took several chunks: next time one will do.
  joined_ = 0;
  for (auto& c : chunks_) {
    joined_ += c.bytes;
    c.free();
  }
  chunks_.clear();
  bytes_ = 0;
}

void* Workspace::take(int64_t count, int64_t each) {
  if (!is_countable({count}, each))
    throw Error("ERR_OUT_OF_MEMORY", "a kernel needs more scratch memory than there can be");
  const int64_t bytes = count * each;
  const int64_t size = (bytes + 63) / 64 * 64 + kBetween;
  while (chunk_ < chunks_.size() && used_ + size > chunks_[chunk_].bytes) {
    chunk_++;
    used_ = 0;
  }
  if (chunk_ == chunks_.size()) {
    int64_t want = size > (1 << 20) ? size : (1 << 20);
    want = want > joined_ ? want : joined_;
    joined_ = 0;
    chunks_.reserve(chunks_.size() + 1);
    chunks_.push_back(Chunk(want));
    bytes_ += want;
    used_ = 0;
  }
  void* p = chunks_[chunk_].base + used_;
  ASAN_UNPOISON_MEMORY_REGION(p, size_t(bytes));
  used_ += size;
  return p;
}

}  // namespace dw
