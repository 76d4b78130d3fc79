// Faults that only the data shows (an id out of range), found by a kernel. The first one of a queue is kept and thrown
// by the next download or synchronize. A kernel that traps goes on with something harmless.
#pragma once
#include <cstdint>
#include <string>

namespace dw {
namespace cuda {

enum class TrapKind : int32_t {
  ids,       // argument 'ids': `value` at element `index` is not in [0, limit)
  suppress,  // top_k's 'suppress': the same
  allowed,   // top_k's 'allowed': `value` at element `index` is below the bound before it, or above `limit`
  labels,    // distill_loss's 'labels': `value` in row `index` is neither -100 nor in [0, limit)
  samples,   // argument 'samples': element `index` is beyond kLargestSample or NaN; `value` holds its bits
  logits,    // top_k's 'logits': NaN or +inf in row `index`
  position,  // argument 'position': `value` is not in [0, limit)
  parents,   // cache_reorder's 'parents': `value` at element `index` is not in [0, limit)
};

// Lies in memory of the host that the device can write.
struct TrapRecord {
  int32_t set;
  int32_t op;
  TrapKind kind;
  int64_t index, value, limit;
};

struct Trap {
  TrapRecord* record;
  int32_t op;
#if defined(__CUDACC__) || defined(DW_EMULATOR)
  __device__ void operator()(TrapKind kind, int64_t index, int64_t value, int64_t limit) const {
    if (atomicCAS(&record->set, 0, 1) != 0) return;
    record->op = op;
    record->kind = kind;
    record->index = index;
    record->value = value;
    record->limit = limit;
    __threadfence_system();
  }
#endif
};

#if defined(__CUDACC__) || defined(DW_EMULATOR)
// The offset of a call (ops/position.h), in range whatever stands there.
__device__ inline int64_t offset_at(const int32_t* position, int64_t offset, const Trap& trap) {
  if (!position) return offset;
  const int64_t at = *position;
  if (at >= 0 && at <= offset) return at;
  trap(TrapKind::position, 0, at, offset + 1);
  return offset;
}
#endif

// Throws the Error that a record stands for, and clears it; returns when there is none. Only when the queue is idle.
void throw_trap(TrapRecord& record);

}  // namespace cuda
}  // namespace dw
