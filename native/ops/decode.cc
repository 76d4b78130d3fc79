#include "core/decode.h"

#include "core/ops.h"

namespace dw {
namespace ops {

// logits [R, V], suppress i32 [S] or null, allowed i32 [R, 4] or null; numbers: k. → values f32 [R, k], ids i32 [R, k],
// logsumexp f32 [R].
void top_k(Prepare& p) {
  const View& logits = p.tensor("logits", kFloat, {kAny, kAny});
  p.optional("suppress", kI32, {kAny});
  const int64_t rows = logits.shape[0], k = p.integer("k", 1, 32);
  p.optional("allowed", kI32, {rows, 4});
  p.require(k <= logits.shape[1], "k", "at most the number of columns of logits, " + logits.describe(),
            std::to_string(k));
  p.output(DType::f32, {rows, k});
  p.output(DType::i32, {rows, k});
  p.output(DType::f32, {rows});
  p.finish();
}

// parents i32 [B, K], inout caches [B·K, P, D], any number of them; numbers: count. Row b·K + k of a cache becomes what
// its row b·K + parents[b, k] was, in the first `count` positions.
void cache_reorder(Prepare& p) {
  const View parents = p.tensor("parents", kI32, {kAny, kAny});
  const int64_t beams = parents.shape[1];
  p.require(beams >= 1 && beams <= kMostBeams, "parents", "1 to " + std::to_string(kMostBeams) + " beams an item",
            parents.describe());
  const int64_t count = p.integer("count", 0, int64_t(1) << 31);
  while (p.more_tensors()) {
    const View cache = p.inout("cache", kFloat, {parents.size(), kAny, kAny});
    p.require(count <= cache.shape[1], "cache", "at least " + std::to_string(count) + " positions", cache.describe());
  }
  p.finish();
}

}  // namespace ops
}  // namespace dw
