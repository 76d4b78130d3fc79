#include "core/ops.h"

namespace dw {
namespace ops {

// logits [R, V], suppress i32 [S] or null; numbers: k. → values f32 [R, k], ids i32 [R, k], logsumexp f32 [R].
void top_k(Prepare& p) {
  const View& logits = p.tensor("logits", kFloat, {kAny, kAny});
  p.optional("suppress", kI32, {kAny});
  const int64_t rows = logits.shape[0], k = p.integer("k", 1, 32);
  p.require(k <= logits.shape[1], "k", "at most the number of columns of logits, " + logits.describe(),
            std::to_string(k));
  p.output(DType::f32, {rows, k});
  p.output(DType::i32, {rows, k});
  p.output(DType::f32, {rows});
  p.finish();
}

}  // namespace ops
}  // namespace dw
