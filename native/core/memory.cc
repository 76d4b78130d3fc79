#include "core/memory.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstdlib>
#include <cstring>
#include <string>

#include "core/error.h"

namespace dw {

constexpr int64_t kAlign = 64;
// A matrix of some megabytes has more small pages than a processor remembers, and each row of it is on another one.
constexpr int64_t kHugePage = 2 << 20, kHugeFrom = 2 * kHugePage;

void* allocate(int64_t bytes) {
  const int64_t align = bytes >= kHugeFrom ? kHugePage : kAlign;
  const int64_t rounded = (bytes + kAlign - 1) / kAlign * kAlign;
  void* data = nullptr;
  if (posix_memalign(&data, size_t(align), size_t(rounded ? rounded : kAlign)) != 0) data = nullptr;
  if (!data)
    throw Error("ERR_OUT_OF_MEMORY",
                "cannot allocate " + std::to_string(bytes) + " bytes for a tensor: memory is full");
#if defined(__linux__)
  if (align == kHugePage) madvise(data, size_t(rounded), MADV_HUGEPAGE);  // a wish: nothing depends on it
#endif
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
