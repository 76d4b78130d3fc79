#include "ops/gated_ffn.h"

namespace dw {

namespace {

void declare_rows(Prepare& p, View& v, const char* name) {
  p.tensor(v, name, kFloat);
  p.require(v.rank >= 2, name, "at least two dimensions", v);
}

void declare_ffn(Prepare& p, Ffn& f, const char* const (&names)[4], unsigned types, int64_t inner, int64_t width) {
  p.tensor(f.fc1, names[0], types, {inner, width});
  inner = f.fc1.shape[0];
  p.tensor(f.fc1_bias, names[1], kFloat, {inner});
  p.tensor(f.fc2, names[2], types, {width, inner});
  p.tensor(f.fc2_bias, names[3], kFloat, {width});
}

// What is held in single precision: double when the oracle works in double.
DType wide(DType out) { return out == DType::f64 ? DType::f64 : DType::f32; }

}  // namespace

// The shared FFN, then the gate and FFN of every language.
void GatedRows::declare_weights(Prepare& p, unsigned types) {
  rows = x.rows();
  width = x.cols();
  declare_ffn(p, shared, {"shared fc1.weight", "shared fc1.bias", "shared fc2.weight", "shared fc2.bias"}, types, kAny,
              width);
  inner = shared.fc1.shape[0];
  gate = kAny;
  for (Expert& e : experts) {
    p.tensor(e.gate_in, "gate_in.weight", kFloat, {gate, width});
    gate = e.gate_in.shape[0];
    p.tensor(e.gate_in_bias, "gate_in.bias", kFloat, {gate});
    p.tensor(e.gate_out, "gate_out.weight", kFloat, {1, gate});
    declare_ffn(p, e.ffn, {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}, types, inner, width);
  }
  if (experts.empty()) gate = 0;
}

// Disjoint ascending ranges of rows.
void GatedRows::declare_ranges(Prepare& p) {
  int64_t last = 0;
  covered = 0;
  for (Expert& e : experts) {
    p.integer(e.begin, "row_begin", last, rows);
    p.integer(e.end, "row_end", e.begin, rows);
    last = e.end;
    e.saved = covered;
    covered += e.rows();
  }
}

double GatedRows::ffn_flop(double n) const { return 2 * Count::product(n, double(width), double(inner)); }

double GatedRows::forward_flop() const {
  return ffn_flop(double(rows)) + (Count::product(double(covered), double(width), double(gate)) +
                                   Count::product(double(covered), double(gate), 1));
}

void GatedRows::count_shape(Count& c, DType compute) const {
  c.shape({rows, width, inner});
  c.work.type = compute;
}

void GatedFfn::declare(Prepare& p) {
  declare_count(p);
  declare_rows(p, x, "x");
  p.optional_like(residual, x, "residual", kFloat);
  declare_weights(p, kFloat);
  p.optional(draws.noise, "noise", kF32 | kF64, {rows});
  draws.declare_masks(p, rows, width);
  declare_ranges(p);
  draws.declare_settings(p);
  p.dtype(compute, "compute");
  p.dtype(type, "out");
  const int64_t expert_rows = draws.skip ? 0 : covered;
  p.output_like(y, x, type);
  p.output(g, wide(type), {rows});
  p.output(gate_hidden, wide(type), {covered, gate});
  p.output(pre_shared, compute, {rows, inner});
  p.output(pre_expert, compute, {expert_rows, inner});
  p.output(delta, compute, {expert_rows, width});
  p.output(chosen, wide(type), {rows});
}

// The shared FFN for all rows; the gate, and unless it is skipped the expert, for those of a language.
void GatedFfn::count(Count& c) const {
  c.work.flop = forward_flop() + (draws.skip ? 0 : ffn_flop(double(covered)));
  count_shape(c, compute);
}

void GatedFfnBackward::declare(Prepare& p) {
  declare_count(p);
  declare_rows(p, dy, "dy");
  p.optional(dgate, "dgate", kF32 | kF64, {1});
  declare_rows(p, x, "x");
  if (dy.rows() != x.rows() || dy.cols() != x.cols()) p.fail("ERR_SHAPE", "dy", x.describe(), dy.describe());
  declare_weights(p, kFloat);
  draws.declare_masks(p, rows, width);
  p.tensor(g, "g", kF32 | kF64, {rows});
  p.tensor(gate_hidden, "gate_hidden", kF32 | kF64, {kAny, gate});
  p.tensor(pre_shared, "pre_shared", kFloat, {rows, inner});
  p.tensor(pre_expert, "pre_expert", kFloat, {kAny, inner});
  p.tensor(delta, "delta", kFloat, {kAny, width});
  gradients.resize(experts.size());
  for (ExpertGradients& d : gradients) {
    p.optional_inout(d.gate_in, "gradient of gate_in.weight", kF32 | kF64, {gate, width});
    p.optional_inout(d.gate_in_bias, "gradient of gate_in.bias", kF32 | kF64, {gate});
    p.optional_inout(d.gate_out, "gradient of gate_out.weight", kF32 | kF64, {1, gate});
    p.optional_inout(d.fc1, "gradient of fc1.weight", kF32 | kF64, {inner, width});
    p.optional_inout(d.fc1_bias, "gradient of fc1.bias", kF32 | kF64, {inner});
    p.optional_inout(d.fc2, "gradient of fc2.weight", kF32 | kF64, {width, inner});
    p.optional_inout(d.fc2_bias, "gradient of fc2.bias", kF32 | kF64, {width});
  }
  declare_ranges(p);
  draws.declare_settings(p);
  const int64_t expert_rows = draws.skip ? 0 : covered;
  const auto require_rows = [&](const View& v, const char* name, int64_t want) {
    p.require(
        v.shape[0] == want, name, [&] { return std::to_string(want) + " rows"; }, v);
  };
  require_rows(gate_hidden, "gate_hidden", covered);
  require_rows(pre_expert, "pre_expert", expert_rows);
  require_rows(delta, "delta", expert_rows);
  p.dtype(compute, "compute");
  p.dtype(type, "out");
  p.output_like(dx, x, type);
}

// The way back through all of that, and the gradients of the weights that train.
void GatedFfnBackward::count(Count& c) const {
  c.work.flop = ffn_flop(double(rows));
  for (size_t l = 0; l < experts.size(); l++) {
    const ExpertGradients& d = gradients[l];
    const double n = double(experts[l].rows()), of_gate = Count::product(n, double(gate), double(width));
    c.work.flop += of_gate;
    if (d.gate_in) c.work.flop += of_gate;
    if (!draws.skip) {
      c.work.flop += ffn_flop(n);
      for (const View* weight : {&d.fc1, &d.fc2})
        if (*weight) c.work.flop += ffn_flop(n) / 2;
    }
    for (const View* v : {&d.gate_in, &d.gate_in_bias, &d.gate_out, &d.fc1, &d.fc1_bias, &d.fc2, &d.fc2_bias})
      c.updated(*v);
  }
  count_shape(c, compute);
}

void GatedFfnHard::declare(Prepare& p) {
  declare_count(p);
  declare_rows(p, x, "x");
  p.optional_like(residual, x, "residual", kFloat);
  declare_weights(p, kWeight);
  p.scratch("shared fc1.weight", rows, inner);
  p.scratch("gate_in.weight", rows, gate);
  declare_ranges(p);
  p.dtype(compute, "compute");
  p.dtype(type, "out");
  p.output_like(y, x, type);
  p.output(g, wide(type), {rows});
}

// A row runs one FFN, the one that its gate chose: the sum does not depend on which. Bytes are those of the shared FFN
// and of every expert, although one that no gate chose is not read.
void GatedFfnHard::count(Count& c) const {
  c.work.flop = forward_flop();
  count_shape(c, compute);
}

void GateBudget::declare(Prepare& p) {
  DType wide = DType::f32;
  p.rest(gates);
  for (View& g : gates) {
    p.tensor(g, "g", kF32 | kF64, {kAny});
    if (g.dtype == DType::f64) wide = DType::f64;
  }
  p.number(budget, "budget", 0, 1);
  p.number(weight, "weight", -1e30, 1e30);
  p.integer(rows, "count", 0, int64_t(1) << 53);
  p.output(mean, wide, {1});
  p.output(loss, wide, {1});
  p.output(dgate, wide, {1});
}

}  // namespace dw
