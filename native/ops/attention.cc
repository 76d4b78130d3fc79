#include "core/ops.h"
#include "ops/keys.h"

namespace dw {
namespace ops {

namespace {

constexpr int64_t kMaxHeadWidth = 128;

int64_t head_count(Prepare& p, int64_t width) {
  const int64_t heads = p.integer("heads", 1, 1 << 16);
  p.require(width % heads == 0, "heads", "a divisor of the width " + std::to_string(width), std::to_string(heads));
  p.require(width / heads >= 1 && width / heads <= kMaxHeadWidth, "heads",
            "heads of width 1 to " + std::to_string(kMaxHeadWidth), std::to_string(width / heads));
  return heads;
}

}  // namespace

// o [B, Tq, D], lse f32 [B, heads, Tq] = attention(q [B, Tq, D], k [B, Tk, D], v [B, Tk, D];
// heads, causal, kv_len, q_offset, out dtype); k and v each also in q8 [B, Tk, heads, D / heads]
void attention(Prepare& p) {
  const View q = p.tensor("q", kFloat, {kAny, kAny, kAny});
  const View k = p.tensor("k", kWeight), v = p.tensor("v", kWeight);
  const int64_t heads = head_count(p, q.shape[2]);
  require_keys(p, "", k, v, q.dtype, q.shape[0], q.shape[2], heads);
  p.flag("causal");
  p.integer("kv_len", 1, k.shape[1]);
  p.integer("q_offset", 0, int64_t(1) << 31);
  const DType out = p.dtype("out");
  p.output(out, {q.shape[0], q.shape[1], q.shape[2]});
  p.output(q.dtype == DType::f64 ? DType::f64 : DType::f32, {q.shape[0], heads, q.shape[1]});
  p.finish();
}

// dq [B, Tq, D], dk, dv [B, Tk, D] = attention_backward(q, k, v, o, lse, do; heads, causal, out dtype)
void attention_backward(Prepare& p) {
  const View q = p.tensor("q", kFloat, {kAny, kAny, kAny});
  const View k = p.tensor("k", kFloat, {q.shape[0], kAny, q.shape[2]});
  const View v = p.tensor("v", kFloat, {q.shape[0], k.shape[1], q.shape[2]});
  if (k.dtype != q.dtype) p.fail("ERR_DTYPE", "k", "the type of q", k.describe());
  if (v.dtype != q.dtype) p.fail("ERR_DTYPE", "v", "the type of q", v.describe());
  p.require(k.shape[1] >= 1, "k", "at least one key", k.describe());
  p.tensor("o", kFloat, {q.shape[0], q.shape[1], q.shape[2]});
  const View lse = p.tensor("lse", kF32 | kF64, {q.shape[0], kAny, q.shape[1]});
  p.tensor("do", kFloat, {q.shape[0], q.shape[1], q.shape[2]});
  const int64_t heads = head_count(p, q.shape[2]);
  p.require(lse.shape[1] == heads, "lse", "one row for each of the " + std::to_string(heads) + " heads",
            lse.describe());
  p.flag("causal");
  const DType out = p.dtype("out");
  p.output_like(q, out);
  p.output_like(k, out);
  p.output_like(v, out);
  p.finish();
}

}  // namespace ops
}  // namespace dw
