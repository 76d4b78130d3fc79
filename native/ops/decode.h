// Decoding: the best next tokens, and beams that go on from one another's caches.
#pragma once
#include "core/prepare.h"
#include "core/work.h"

namespace dw {

// logits [R, V], suppress? i32 [S], allowed? i32 [R, 4] → values f32 [R, k], ids i32 [R, k], logsumexp f32 [R]
struct TopK {
  View logits, suppress;
  int64_t k = 1;
  View allowed;
  View values, ids, logsumexp;

  void declare(Prepare& p);
};

// parents i32 [B, K], caches [B·K, P, D], any number of them. Row b·K + k of a cache becomes what its row
// b·K + parents[b, k] was, in the first `positions`.
struct CacheReorder {
  View parents;
  int64_t positions = 0;
  std::vector<View> caches;

  void declare(Prepare& p);
  void count(Count& c) const;
};

}  // namespace dw
