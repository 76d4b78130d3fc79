#include "ops/decoder_layer.h"

#include "ops/attention.h"
#include "ops/keys.h"

namespace dw {

void DecoderLayer::declare(Prepare& p) {
  p.several(experts, "languages", 1000);
  p.tensor(x, "x", kF32, {kAny, kAny, kAny});
  const int64_t B = batch(), T = tokens(), D = width();
  p.require(D >= 1, "x", "rows of at least one column", x);
  const auto declare_norm = [&](Norm& n) {
    p.tensor(n.weight, "norm weight", kF32, {D});
    p.tensor(n.bias, "norm bias", kF32, {D});
  };
  const auto declare_square = [&](Square& s, const char* weight, const char* bias) {
    p.tensor(s.weight, weight, kF32 | kBf16 | kQ8, {D, D});
    if (bias) p.tensor(s.bias, bias, kF32, {D});
  };
  declare_norm(norm);
  declare_square(q, "q weight", "q bias");
  declare_square(k, "k weight", nullptr);
  declare_square(v, "v weight", "v bias");
  declare_square(out, "out weight", "out bias");
  p.inout(keys, "keys", kF32 | kBf16, {B, kAny, D});
  const int64_t positions = keys.shape[1];
  p.inout(values, "values", kF32 | kBf16, {B, positions, D});
  declare_norm(cross_norm);
  declare_square(cross_q, "cross q weight", "cross q bias");
  declare_square(cross_out, "cross out weight", "cross out bias");
  p.tensor(cross_keys, "cross k", kF32 | kBf16 | kQ8);
  const int64_t items = cross_keys.shape[0];
  p.require(
      items == 0 ? B == 0 : B % items == 0, "cross k",
      [&] { return "items for " + std::to_string(B) + " rows of x, as many for each"; }, cross_keys);
  p.tensor(cross_values, "cross v", kF32 | kBf16 | kQ8);
  declare_norm(ffn_norm);
  unsigned matrix = kF32 | kBf16 | kQ8;
  p.tensor(shared.fc1, "fc1 weight", matrix, {kAny, D});
  const int64_t inner = shared.fc1.shape[0];
  matrix = shared.fc1.dtype == DType::q8 ? kQ8 : kF32 | kBf16;  // one product's type for all
  p.tensor(shared.fc1_bias, "fc1 bias", kF32, {inner});
  p.tensor(shared.fc2, "fc2 weight", matrix, {D, inner});
  p.tensor(shared.fc2_bias, "fc2 bias", kF32, {D});
  int64_t gate = kAny;
  for (Expert& e : experts) {
    p.tensor(e.gate_in, "gate_in.weight", kF32 | kBf16, {gate, D});
    gate = e.gate_in.shape[0];
    p.tensor(e.gate_in_bias, "gate_in.bias", kF32, {gate});
    p.tensor(e.gate_out, "gate_out.weight", kF32 | kBf16, {1, gate});
    p.tensor(e.ffn.fc1, "expert fc1 weight", matrix, {inner, D});
    p.tensor(e.ffn.fc1_bias, "expert fc1 bias", kF32, {inner});
    p.tensor(e.ffn.fc2, "expert fc2 weight", matrix, {D, inner});
    p.tensor(e.ffn.fc2_bias, "expert fc2 bias", kF32, {D});
  }
  p.scratch("fc1 weight", B * T, inner);
  if (gate != kAny) p.scratch("gate_in.weight", B * T, gate);
  p.trailing(position, "position", kI32, {1});
  if (position) p.require(T == 1, "x", "one token an item where its position is a tensor", x);
  int64_t last = 0;
  for (Expert& e : experts) {
    p.integer(e.begin, "row_begin", last, B * T);
    p.integer(e.end, "row_end", e.begin, B * T);
    last = e.end;
  }
  p.integer(heads, "heads", 1, 1 << 16);
  p.require(
      D % heads == 0 && D / heads <= 128, "heads",
      [&] { return "a divisor of the width " + std::to_string(D) + ", for heads of at most 128"; }, heads);
  p.integer(offset, "offset", 0, int64_t(1) << 31);
  p.require(
      offset + T <= positions && positions >= 1, "keys",
      [&] { return "at least " + std::to_string(offset + T) + " positions"; }, keys);
  p.number(epsilon, "eps", 0, 1);
  p.dtype(compute, "compute");
  for (const View* cache : {&keys, &values})
    if (cache->dtype != compute)
      p.fail("ERR_DTYPE", "keys and values", std::string("the computation's type ") + name_of(compute),
             cache->describe());
  require_keys(p, "cross ", cross_keys, cross_values, compute, items, D, heads);
  p.output(y, DType::f32, {B, T, D});
  p.output(g, DType::f32, {B * T});
}

// Six products of the width, attention to the tokens so far and to the encoder's rows, and an FFN a row.
void DecoderLayer::count(Count& c) const {
  const double rows = double(batch() * tokens()), wide = double(width());
  const double filled = double(offset + tokens());
  c.work.flop = 6 * Count::product(rows, wide, wide) + 2 * Count::product(rows, wide, double(shared.fc1.shape[0]));
  c.work.flop +=
      4 * double(batch()) * wide *
      (seen_pairs(double(tokens()), filled, true, double(offset)) + double(tokens()) * double(cross_keys.shape[1]));
  for (const Expert& e : experts) c.work.flop += Count::product(double(e.rows()), wide + 1, double(e.gate_in.shape[0]));
  // Of a cache the rows so far, and the new ones once more.
  for (const View* cache : {&keys, &values}) c.only(*cache, (filled + double(tokens())) / double(cache->shape[1]));
  c.shape({batch(), tokens(), cross_keys.shape[1], width()});
  c.work.type = compute;
}

}  // namespace dw
