#include "core/packed.h"

#include <atomic>
#include <mutex>

#include "core/memory.h"

namespace dw {

static std::mutex packed_mutex;

static std::atomic<int64_t> packed_total{0};

int64_t packed_bytes() { return packed_total; }

PackedWeight::PackedWeight(int64_t size) : panels(allocate(size)), bytes(size) { packed_total += size; }
PackedWeight::~PackedWeight() {
  packed_total -= bytes;
  deallocate(panels);
}

const PackedWeight* find_packed(const Storage& storage, int slot) {
  std::lock_guard<std::mutex> lock(packed_mutex);
  return static_cast<const PackedWeight*>(storage.packed[slot].get());
}

const PackedWeight* keep_packed(Storage& storage, int slot, PackedWeight* made) {
  std::shared_ptr<PackedWeight> owner(made);
  std::lock_guard<std::mutex> lock(packed_mutex);
  if (!storage.packed[slot]) storage.packed[slot] = owner;
  return static_cast<const PackedWeight*>(storage.packed[slot].get());
}

}  // namespace dw
