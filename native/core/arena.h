// Memory of a step. Blocks are handed out from a few large chunks and come back when their tensor is disposed or, all
// at once, when the step ends. A stream runs its kernels in order, so a block may be given out again as soon as the
// call that last used it has been queued. Used from the JavaScript thread only.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "core/memory.h"

namespace dw {

class Arena {
 public:
  explicit Arena(std::shared_ptr<Memory> memory) : memory_(std::move(memory)) {}
  ~Arena();
  void* take(int64_t bytes);
  void give(void* block);
  void reset();
  // Gives the chunks back to their memory. Only when no queued kernel can touch them any more.
  void release();
  int64_t reserved() const { return reserved_; }
  int64_t used() const { return used_; }
  int64_t peak() const { return peak_; }

 private:
  struct Chunk {
    char* base;
    int64_t bytes;
  };
  void grow(int64_t bytes);

  const std::shared_ptr<Memory> memory_;
  std::vector<Chunk> chunks_;
  std::map<char*, int64_t> free_;  // by address: neighbours join again
  std::map<char*, int64_t> live_;
  int64_t reserved_ = 0, used_ = 0, peak_ = 0;
};

}  // namespace dw
