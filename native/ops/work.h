// How much an operation computes and moves, by its arguments: what a profile divides by the time that it took.
#pragma once
#include <cstdint>

#include "core/call.h"

namespace dw {

constexpr int kWorkRank = 4;

struct Work {
  // Of products, attention and transforms, a multiply and an add counted as two. Operations on single elements count
  // none: memory is what bounds them.
  double flop = 0;
  // Every tensor that is read or written, once; twice where it is updated in place.
  double bytes = 0;
  DType type = DType::f32;  // that the products are computed in; of the first tensor where there are none
  int rank = 0;
  int64_t shape[kWorkRank] = {};  // of a product [rows, inputs, outputs]; else of the first tensor
};

// `readable`: the values of the call's tensors may be read here (they lie in the memory of the process and have been
// computed), for what depends on them.
Work work_of(int op, const Call& call, bool readable);

}  // namespace dw
