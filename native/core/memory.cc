#include "core/memory.h"

#include <cstdlib>
#include <cstring>
#include <string>

#include "core/error.h"

namespace dw {

constexpr int64_t kAlign = 64;

void* allocate(int64_t bytes) {
  const int64_t rounded = (bytes + kAlign - 1) / kAlign * kAlign;
  void* data = std::aligned_alloc(kAlign, size_t(rounded ? rounded : kAlign));
  if (!data)
    throw Error("ERR_OUT_OF_MEMORY",
                "cannot allocate " + std::to_string(bytes) + " bytes for a tensor: memory is full");
  return data;
}

void deallocate(void* data) { std::free(data); }

namespace {

class HostMemory : public Memory {
 public:
  void* allocate(int64_t bytes) override { return dw::allocate(bytes); }
  void deallocate(void* block) override { dw::deallocate(block); }
  void write(void* to, const void* from, int64_t bytes) override {
    // An empty tensor may come with no memory at all, which memcpy may not be given.
    if (bytes > 0) std::memcpy(to, from, size_t(bytes));
  }
  int64_t chunk() const override { return 16 << 20; }
};

}  // namespace

const std::shared_ptr<Memory>& host_memory() {
  static const std::shared_ptr<Memory> memory = std::make_shared<HostMemory>();
  return memory;
}

}  // namespace dw
