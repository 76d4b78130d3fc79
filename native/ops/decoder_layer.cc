#include "ops/decoder_layer.h"

#include "core/ops.h"
#include "ops/keys.h"

namespace dw {
namespace ops {

// Tensors: x f32 [B, T, D]; self-attention's norm weight and bias, q weight and bias, k weight, v and out weight and
// bias, and the caches of keys and values [B, P, D], to which rows [offset, offset + T) are written; cross-attention's
// norm, q and out, and its keys and values (ops/keys.h) of C items and S rows, where each item is for the next B / C of
// x; the FFN's norm, fc1 and fc2, and for each language the seven tensors of gated_ffn_hard; then, or not, `position`
// (ops/position.h), for one token an item. Numbers: languages, row_begin and row_end of each, heads, offset, eps,
// compute. Outputs: y f32 [B, T, D], g f32 [B·T] (0 or 1).
void decoder_layer(Prepare& p) {
  const int64_t languages = p.integer("languages", 0, 1000);
  const View x = p.tensor("x", kF32, {kAny, kAny, kAny});
  const int64_t B = x.shape[0], T = x.shape[1], D = x.shape[2];
  p.require(D >= 1, "x", "rows of at least one column", x.describe());
  const auto norm = [&] {
    p.tensor("norm weight", kF32, {D});
    p.tensor("norm bias", kF32, {D});
  };
  const auto square = [&](const char* weight, const char* bias) {
    p.tensor(weight, kF32 | kBf16 | kQ8, {D, D});
    if (bias) p.tensor(bias, kF32, {D});
  };
  norm();
  square("q weight", "q bias");
  square("k weight", nullptr);
  square("v weight", "v bias");
  square("out weight", "out bias");
  const View keys = p.inout("keys", kF32 | kBf16, {B, kAny, D});
  const int64_t positions = keys.shape[1];
  const View values = p.inout("values", kF32 | kBf16, {B, positions, D});
  norm();
  square("cross q weight", "cross q bias");
  square("cross out weight", "cross out bias");
  const View seen = p.tensor("cross k", kF32 | kBf16 | kQ8);
  const int64_t items = seen.shape[0];
  p.require(items == 0 ? B == 0 : B % items == 0, "cross k",
            "items for " + std::to_string(B) + " rows of x, as many for each", seen.describe());
  const View seen_values = p.tensor("cross v", kF32 | kBf16 | kQ8);
  norm();
  unsigned matrix = kF32 | kBf16 | kQ8;
  const View fc1 = p.tensor("fc1 weight", matrix, {kAny, D});
  const int64_t inner = fc1.shape[0];
  matrix = fc1.dtype == DType::q8 ? kQ8 : kF32 | kBf16;  // one product's type for all
  p.tensor("fc1 bias", kF32, {inner});
  p.tensor("fc2 weight", matrix, {D, inner});
  p.tensor("fc2 bias", kF32, {D});
  int64_t gate = kAny;
  for (int64_t l = 0; l < languages; l++) {
    gate = p.tensor("gate_in.weight", kF32 | kBf16, {gate, D}).shape[0];
    p.tensor("gate_in.bias", kF32, {gate});
    p.tensor("gate_out.weight", kF32 | kBf16, {1, gate});
    p.tensor("expert fc1 weight", matrix, {inner, D});
    p.tensor("expert fc1 bias", kF32, {inner});
    p.tensor("expert fc2 weight", matrix, {D, inner});
    p.tensor("expert fc2 bias", kF32, {D});
  }
  p.scratch("fc1 weight", B * T, inner);
  if (gate != kAny) p.scratch("gate_in.weight", B * T, gate);
  if (p.more_tensors()) {
    p.tensor("position", kI32, {1});
    p.require(T == 1, "x", "one token an item where its position is a tensor", x.describe());
  }
  int64_t last = 0;
  for (int64_t l = 0; l < languages; l++) {
    const int64_t begin = p.integer("row_begin", last, B * T);
    last = p.integer("row_end", begin, B * T);
  }
  const int64_t heads = p.integer("heads", 1, 1 << 16);
  p.require(D % heads == 0 && D / heads <= 128, "heads",
            "a divisor of the width " + std::to_string(D) + ", for heads of at most 128", std::to_string(heads));
  const int64_t offset = p.integer("offset", 0, int64_t(1) << 31);
  p.require(offset + T <= positions && positions >= 1, "keys", "at least " + std::to_string(offset + T) + " positions",
            keys.describe());
  p.number("eps", 0, 1);
  const DType compute = p.dtype("compute");
  for (const View* cache : {&keys, &values})
    if (cache->dtype != compute)
      p.fail("ERR_DTYPE", "keys and values", std::string("the computation's type ") + name_of(compute),
             cache->describe());
  require_keys(p, "cross ", seen, seen_values, compute, items, D, heads);
  p.output(DType::f32, {B, T, D});
  p.output(DType::f32, {B * T});
  p.finish();
}

}  // namespace ops
}  // namespace dw
