#include "ops/gated_ffn.h"

#include "core/ops.h"
#include "core/philox.h"

namespace dw {

double gate_noise(const GatedFfn& f, int64_t row) {
  if (f.alpha() == 0) return 0;
  if (f.at(f.noise)) return load(f.at(f.noise), row);
  return normal_at(uint64_t(row), f.step(), f.op(), f.seed());
}

static double keep(const View& mask, double p, int64_t i, uint32_t step, uint32_t op, uint64_t seed) {
  if (mask) return load(mask, i) / (1 - p);
  if (p == 0) return 1;
  return kept_at(uint64_t(i), float(p), step, op, seed) ? 1 / (1 - p) : 0;
}
double gate_keep(const GatedFfn& f, int64_t i) {
  return keep(f.at(f.gate_mask), f.gate_dropout(), i, f.step(), f.op() + 1, f.seed());
}
double expert_keep(const GatedFfn& f, int64_t i) {
  return keep(f.at(f.expert_mask), f.expert_dropout(), i, f.step(), f.op() + 2, f.seed());
}

namespace ops {

namespace {
struct Shape {
  int64_t rows, width, inner, gate, languages;
};

const View& rows_tensor(Prepare& p, const char* name) {
  const View& v = p.tensor(name, kFloat);
  p.require(v.rank >= 2, name, "at least two dimensions", v.describe());
  return v;
}

void residual(Prepare& p, const View& x) {
  x.rank == 2   ? p.optional("residual", kFloat, {x.shape[0], x.shape[1]})
  : x.rank == 3 ? p.optional("residual", kFloat, {x.shape[0], x.shape[1], x.shape[2]})
                : p.optional("residual", kFloat, {x.shape[0], x.shape[1], x.shape[2], x.shape[3]});
}

// The shared FFN, then the gate and FFN of every language. The number of languages is call.num[0], read before the
// other numbers because it says how many tensors there are.
void weights(Prepare& p, Shape& s, const View& x, int64_t languages, unsigned types = kFloat) {
  s.rows = x.rows();
  s.width = x.cols();
  s.languages = languages;
  const auto matrix = [&](const char* name, int64_t rows, int64_t cols) {
    const View& w = p.tensor(name, types, {rows, cols});
    return w.shape[0];
  };
  s.inner = matrix("shared fc1.weight", kAny, s.width);
  p.tensor("shared fc1.bias", kFloat, {s.inner});
  matrix("shared fc2.weight", s.width, s.inner);
  p.tensor("shared fc2.bias", kFloat, {s.width});
  s.gate = kAny;
  for (int64_t l = 0; l < languages; l++) {
    s.gate = p.tensor("gate_in.weight", kFloat, {s.gate, s.width}).shape[0];
    p.tensor("gate_in.bias", kFloat, {s.gate});
    p.tensor("gate_out.weight", kFloat, {1, s.gate});
    matrix("fc1.weight", s.inner, s.width);
    p.tensor("fc1.bias", kFloat, {s.inner});
    matrix("fc2.weight", s.width, s.inner);
    p.tensor("fc2.bias", kFloat, {s.width});
  }
  if (languages == 0) s.gate = 0;
}

// Disjoint ascending ranges of rows; returns how many rows they cover.
int64_t ranges(Prepare& p, const Shape& s) {
  int64_t last = 0, covered = 0;
  for (int64_t l = 0; l < s.languages; l++) {
    const int64_t begin = p.integer("row_begin", last, s.rows);
    last = p.integer("row_end", begin, s.rows);
    covered += last - begin;
  }
  return covered;
}

bool settings(Prepare& p) {
  const bool skip = p.flag("skip");
  p.number("alpha", 0, 1e6);
  p.number("gate_dropout", 0, 0.999999);
  p.number("expert_dropout", 0, 0.999999);
  p.integer("seed", 0, (int64_t(1) << 53) - 1);
  p.integer("step", 0, 0xFFFFFFFF);
  p.integer("op", 0, 0xFFFFFFFF - 2);
  return skip;
}

// What is held in single precision: double when the oracle works in double.
DType wide(DType out) { return out == DType::f64 ? DType::f64 : DType::f32; }
}  // namespace

// Training. Tensors: x [.., D], residual?, shared fc1.weight [F, D] fc1.bias fc2.weight [D, F] fc2.bias, then for each
// language
//   gate_in.weight [H, D] gate_in.bias gate_out.weight [1, H] and its four of an FFN; noise? [R], gate_mask? and
//   expert_mask? [R, D] (1 keeps). Without them noise (op), gate mask (op + 1) and expert mask (op + 2) are drawn by
//   Philox.
// Numbers: languages, row_begin and row_end of each (ascending, disjoint; rows of no language take the shared FFN and g
// = 0),
//   skip, alpha, gate_dropout, expert_dropout, seed, step, op, compute, out.
// Outputs: y, g [R], and for the backward pass gate_hidden [C, H] (after the relu), pre_shared [R, F], pre_expert [C,
// F],
//   delta [C, D] = drop(FFN_l(x)) - FFN_shared(x), these three in the products' type; C: rows that belong to a
//   language, in order. Skipped: pre_expert and delta have no rows.
void gated_ffn(Prepare& p) {
  Shape s;
  const int64_t languages = p.integer("languages", 0, 1000);
  const View& x = rows_tensor(p, "x");
  residual(p, x);
  weights(p, s, x, languages);
  p.optional("noise", kF32 | kF64, {s.rows});
  p.optional("gate_mask", kF32, {s.rows, s.width});
  p.optional("expert_mask", kF32, {s.rows, s.width});
  const int64_t covered = ranges(p, s);
  const int64_t experts = settings(p) ? 0 : covered;
  const DType compute = p.dtype("compute");
  const DType out = p.dtype("out");
  p.output_like(x, out);
  p.output(wide(out), {s.rows});
  p.output(wide(out), {covered, s.gate});
  p.output(compute, {s.rows, s.inner});
  p.output(compute, {experts, s.inner});
  p.output(compute, {experts, s.width});
  p.finish();
}

// Tensors: dy [.., D], dgate? [1], x, the weights as above, gate_mask?, expert_mask?, g, gate_hidden, pre_shared,
// pre_expert,
//   delta, then for each language a gradient for each of its seven tensors, added to; null: frozen. Numbers as above.
// Output: dx like x.
void gated_ffn_backward(Prepare& p) {
  Shape s;
  const int64_t languages = p.integer("languages", 0, 1000);
  const View& dy = rows_tensor(p, "dy");
  p.optional("dgate", kF32 | kF64, {1});
  const View& x = rows_tensor(p, "x");
  p.require(dy.rows() == x.rows() && dy.cols() == x.cols(), "dy", x.describe(), dy.describe());
  weights(p, s, x, languages);
  p.optional("gate_mask", kF32, {s.rows, s.width});
  p.optional("expert_mask", kF32, {s.rows, s.width});
  p.tensor("g", kF32 | kF64, {s.rows});
  const View& hidden = p.tensor("gate_hidden", kF32 | kF64, {kAny, s.gate});
  p.tensor("pre_shared", kFloat, {s.rows, s.inner});
  const View& pre_expert = p.tensor("pre_expert", kFloat, {kAny, s.inner});
  const View& delta = p.tensor("delta", kFloat, {kAny, s.width});
  for (int64_t l = 0; l < languages; l++) {
    p.inout("gradient of gate_in.weight", kF32 | kF64, {s.gate, s.width}, true);
    p.inout("gradient of gate_in.bias", kF32 | kF64, {s.gate}, true);
    p.inout("gradient of gate_out.weight", kF32 | kF64, {1, s.gate}, true);
    p.inout("gradient of fc1.weight", kF32 | kF64, {s.inner, s.width}, true);
    p.inout("gradient of fc1.bias", kF32 | kF64, {s.inner}, true);
    p.inout("gradient of fc2.weight", kF32 | kF64, {s.width, s.inner}, true);
    p.inout("gradient of fc2.bias", kF32 | kF64, {s.width}, true);
  }
  const int64_t covered = ranges(p, s);
  const int64_t experts = settings(p) ? 0 : covered;
  auto rows = [&](const View& v, const char* name, int64_t want) {
    p.require(v.shape[0] == want, name, std::to_string(want) + " rows", v.describe());
  };
  rows(hidden, "gate_hidden", covered);
  rows(pre_expert, "pre_expert", experts);
  rows(delta, "delta", experts);
  p.dtype("compute");
  p.output_like(x, p.dtype("out"));
  p.finish();
}

// Inference. Tensors: x, residual?, the weights as above. Numbers: languages, ranges, compute, out. Outputs: y, g [R]
// (0 or 1).
void gated_ffn_hard(Prepare& p) {
  Shape s;
  const int64_t languages = p.integer("languages", 0, 1000);
  const View& x = rows_tensor(p, "x");
  residual(p, x);
  weights(p, s, x, languages, kWeight);
  p.scratch("shared fc1.weight", s.rows, s.inner);
  p.scratch("gate_in.weight", s.rows, s.gate);
  ranges(p, s);
  p.dtype("compute");
  const DType out = p.dtype("out");
  p.output_like(x, out);
  p.output(wide(out), {s.rows});
  p.finish();
}

// Tensors: g of every layer. Numbers: budget, weight, count (rows that belong to a language, over all layers; 0: all
// given). Outputs: mean [1], loss [1] = |mean - budget|, dgate [1] = weight·sign(mean - budget) / count.
void gate_budget(Prepare& p) {
  DType type = DType::f32;
  while (p.more_tensors()) {
    const View& g = p.tensor("g", kF32 | kF64, {kAny});
    if (g.dtype == DType::f64) type = DType::f64;
  }
  p.number("budget", 0, 1);
  p.number("weight", -1e30, 1e30);
  p.integer("count", 0, int64_t(1) << 53);
  for (int i = 0; i < 3; i++) p.output(type, {1});
  p.finish();
}

}  // namespace ops
}  // namespace dw
