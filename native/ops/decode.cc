#include "ops/decode.h"

#include "core/decode.h"

namespace dw {

void TopK::declare(Prepare& p) {
  p.tensor(logits, "logits", kFloat, {kAny, kAny});
  p.optional(suppress, "suppress", kI32, {kAny});
  p.integer(k, "k", 1, 32);
  const int64_t rows = logits.shape[0];
  p.optional(allowed, "allowed", kI32, {rows, 4});
  p.require(
      k <= logits.shape[1], "k", [&] { return "at most the number of columns of logits, " + logits.describe(); }, k);
  p.output(values, DType::f32, {rows, k});
  p.output(ids, DType::i32, {rows, k});
  p.output(logsumexp, DType::f32, {rows});
}

void CacheReorder::declare(Prepare& p) {
  p.tensor(parents, "parents", kI32, {kAny, kAny});
  const int64_t beams = parents.shape[1];
  p.require(
      beams >= 1 && beams <= kMostBeams, "parents",
      [] { return "1 to " + std::to_string(kMostBeams) + " beams an item"; }, parents);
  p.integer(positions, "count", 0, int64_t(1) << 31);
  p.rest(caches);
  for (View& cache : caches) {
    p.inout(cache, "cache", kFloat, {parents.size(), kAny, kAny});
    p.require(
        positions <= cache.shape[1], "cache", [&] { return "at least " + std::to_string(positions) + " positions"; },
        cache);
  }
}

// The positions in use, read and written, as if every row had another parent.
void CacheReorder::count(Count& c) const {
  for (const View& cache : caches)
    if (cache.shape[1] > 0) c.only(cache, 2 * double(positions) / double(cache.shape[1]));
}

}  // namespace dw
