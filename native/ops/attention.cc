#include "ops/attention.h"

#include <cmath>

#include "ops/keys.h"

namespace dw {

constexpr int64_t kMaxHeadWidth = 128;

static void declare_heads(Prepare& p, int64_t& heads, int64_t width) {
  p.integer(heads, "heads", 1, 1 << 16);
  p.require(
      width % heads == 0, "heads", [&] { return "a divisor of the width " + std::to_string(width); }, heads);
  p.require(
      width / heads >= 1 && width / heads <= kMaxHeadWidth, "heads",
      [] { return "heads of width 1 to " + std::to_string(kMaxHeadWidth); }, width / heads);
}

double seen_pairs(double queries, double keys, bool causal, double offset) {
  if (!causal) return queries * keys;
  // Query i sees keys 0 to offset + i; from query `rising` on it sees all.
  const double rising = std::fmax(0, std::fmin(queries, keys - offset));
  return rising * (offset + (rising + 1) / 2) + (queries - rising) * keys;
}

void Attention::declare(Prepare& p) {
  p.tensor(q, "q", kFloat, {kAny, kAny, kAny});
  p.tensor(k, "k", kWeight);
  p.tensor(v, "v", kWeight);
  p.inner(position, "position", kI32, {1});
  declare_heads(p, heads, q.shape[2]);
  require_keys(p, "", k, v, q.dtype, q.shape[0], q.shape[2], heads);
  p.flag(causal, "causal");
  p.integer(kv_len, "kv_len", 1, k.shape[1]);
  p.integer(q_offset, "q_offset", 0, int64_t(1) << 31);
  p.dtype(type, "out");
  p.output(o, type, {q.shape[0], q.shape[1], q.shape[2]});
  p.output(lse, q.dtype == DType::f64 ? DType::f64 : DType::f32, {q.shape[0], heads, q.shape[1]});
}

// Scores and weighted sum: 2 products forward; 5 backward, which computes the scores again.
void Attention::count(Count& c) const {
  c.work.flop = 2 * 2 * double(q.shape[0] * q.shape[2]) *
                seen_pairs(double(q.shape[1]), double(kv_len), causal, double(q_offset));
  c.shape({q.shape[0], q.shape[1], kv_len, q.shape[2]});
  c.work.type = q.dtype;
  // Of a cache only the keys and values so far.
  for (const View* cache : {&k, &v}) c.only(*cache, double(kv_len) / double(k.shape[1]));
}

void AttentionBackward::declare(Prepare& p) {
  p.tensor(q, "q", kFloat, {kAny, kAny, kAny});
  p.tensor(k, "k", kFloat, {q.shape[0], kAny, q.shape[2]});
  p.tensor(v, "v", kFloat, {q.shape[0], k.shape[1], q.shape[2]});
  if (k.dtype != q.dtype) p.fail("ERR_DTYPE", "k", "the type of q", k.describe());
  if (v.dtype != q.dtype) p.fail("ERR_DTYPE", "v", "the type of q", v.describe());
  p.require(k.shape[1] >= 1, "k", "at least one key", k);
  p.tensor(o, "o", kFloat, {q.shape[0], q.shape[1], q.shape[2]});
  p.tensor(lse, "lse", kF32 | kF64, {q.shape[0], kAny, q.shape[1]});
  p.tensor(dout, "do", kFloat, {q.shape[0], q.shape[1], q.shape[2]});
  declare_heads(p, heads, q.shape[2]);
  p.require(
      lse.shape[1] == heads, "lse", [&] { return "one row for each of the " + std::to_string(heads) + " heads"; }, lse);
  p.flag(causal, "causal");
  p.dtype(type, "out");
  p.output_like(dq, q, type);
  p.output_like(dk, k, type);
  p.output_like(dv, v, type);
}

void AttentionBackward::count(Count& c) const {
  c.work.flop = 5 * 2 * double(q.shape[0] * q.shape[2]) * seen_pairs(double(q.shape[1]), double(k.shape[1]), causal, 0);
  c.shape({q.shape[0], q.shape[1], k.shape[1], q.shape[2]});
  c.work.type = q.dtype;
}

}  // namespace dw
