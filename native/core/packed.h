// Packed forms of frozen weights, kept with the tensor's storage. Compiled once (not per instruction set) and safe to
// call from several streams that share a weight.
#pragma once
#include <cstdint>

#include "core/tensor.h"

namespace dw {

// Bytes of all packed forms in the process.
int64_t packed_bytes();

struct PackedWeight {
  explicit PackedWeight(int64_t bytes);
  ~PackedWeight();
  PackedWeight(const PackedWeight&) = delete;
  void* panels;
  const int64_t bytes;
  const void* source = nullptr;  // where the weight's elements lie
  int layout = 0;                // instruction sets differ in the width of a panel and in the type of its elements
  DType type = DType::f32;       // of the source
  int64_t n = 0, k = 0, ld = 0;
};

// Which of Storage::packed.
inline int packed_slot(bool b_transposed, DType compute) {
  return (b_transposed ? 0 : 2) + (compute == DType::bf16 ? 1 : 0);
}
// The packed form in a slot, or null. It lives as long as the storage.
const PackedWeight* find_packed(const Storage& storage, int slot);
// Stores a packed form; when another stream was faster, that one is kept and `made` freed. Returns the one kept.
const PackedWeight* keep_packed(Storage& storage, int slot, PackedWeight* made);

}  // namespace dw
