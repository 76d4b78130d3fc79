#include "ops/distill_loss.h"

namespace dw {

void DistillLoss::declare(Prepare& p) {
  p.tensor(hidden, "hidden", kFloat, {kAny, kAny});
  const int64_t rows = hidden.shape[0], width = hidden.shape[1];
  p.require(width > 0, "hidden", "rows of at least one column", hidden);
  p.tensor(weight, "weight", kFloat, {kAny, width});
  const int64_t vocabulary = weight.shape[0];
  p.require(vocabulary > 0 && vocabulary <= INT32_MAX, "weight", "1 to 2^31 - 1 tokens", weight);
  p.tensor(labels, "labels", kI32, {rows});
  p.optional(teacher_hidden, "teacher_hidden", kFloat, {rows, kAny});
  p.optional(teacher_weight, "teacher_weight", kFloat, {vocabulary, teacher_hidden ? teacher_hidden.shape[1] : kAny});
  p.optional_inout(dweight, "dweight", kF32 | kF64, {vocabulary, width});
  p.number(smoothing, "smoothing", 0, 1);
  p.number(temperature, "temperature", 0, 1e6);
  p.require(temperature > 0, "temperature", "more than 0", temperature);
  p.integer(kind, "kind", 0, 2);
  p.number(ce_weight, "ce_weight", -1e30, 1e30);
  p.number(kd_weight, "kd_weight", -1e30, 1e30);
  p.flag(all_positions, "kd_all_positions");
  p.flag(grad, "grad");
  p.dtype(compute, "compute");
  p.integer(workspace, "workspace", 1 << 20, int64_t(1) << 46);
  p.number(epsilon, "epsilon", 0, 1);
  const bool none = kind == Distill::none, both = bool(teacher_hidden) && bool(teacher_weight);
  if (none ? bool(teacher_hidden) || bool(teacher_weight) : !both)
    p.fail("ERR_ARGUMENT", "teacher_hidden", none ? "no teacher for kind 0" : "a teacher's rows and weight",
           none ? "a teacher" : "null");
  if (dweight && !grad) p.fail("ERR_ARGUMENT", "dweight", "null when no gradient is asked", dweight.describe());
  const DType out = hidden.dtype == DType::f64 ? DType::f64 : DType::f32;
  p.output(stats, out, {4});
  p.output(ce_rows, out, {rows});
  p.output(kd_rows, out, {rows});
  p.output(dhidden, out, {grad ? rows : 0, width});
}

// Logits of student and teacher and, with the gradient, the way back to the hidden rows and to the weight. Rows without
// a label count for nothing unless the divergence is taken over all; where labels cannot be read, all rows count.
void DistillLoss::count(Count& c) const {
  const bool all = all_positions && kind != Distill::none;
  int64_t rows = hidden.shape[0];
  if (c.readable && !all) {
    rows = 0;
    for (int64_t r = 0; r < labels.size(); r++) rows += labels.as<int32_t>()[r] != kIgnored;
  }
  const double one = Count::product(double(rows), double(weight.shape[1]), double(weight.shape[0]));
  c.work.flop = one * (1 + grad + (grad && dweight));
  if (teacher_hidden)
    c.work.flop += Count::product(double(rows), double(teacher_hidden.shape[1]), double(weight.shape[0]));
  c.shape({rows, weight.shape[1], weight.shape[0]});
  c.work.type = compute;
  c.updated(dweight);
}

LabelledLoss::LabelledLoss(const DistillLoss& loss)
    : hidden(loss.hidden),
      weight(loss.weight),
      labels(loss.labels),
      teacher_hidden(loss.teacher_hidden),
      teacher_weight(loss.teacher_weight),
      dweight(loss.dweight),
      rows(hidden.rows()),
      width(hidden.cols()),
      vocabulary(weight.rows()),
      teacher_width(teacher_hidden ? teacher_hidden.cols() : 0),
      smoothing(loss.smoothing),
      temperature(loss.temperature),
      kind(loss.kind),
      ce_weight(loss.ce_weight),
      kd_weight(loss.kd_weight),
      all_positions(loss.all_positions),
      grad(loss.grad),
      compute(loss.compute),
      workspace(loss.workspace),
      epsilon(loss.epsilon),
      labelled(0),
      positions(0),
      stats(loss.stats),
      ce_rows(loss.ce_rows),
      kd_rows(loss.kd_rows),
      dhidden(loss.dhidden) {
  for (int64_t r = 0; r < rows; r++) {
    const int32_t label = labels.as<int32_t>()[r];
    if (label == kIgnored) continue;
    if (label < 0 || label >= vocabulary)
      throw Error("ERR_ARGUMENT", "distill_loss: argument 'labels': expected token ids below " +
                                      std::to_string(vocabulary) + " or -100, got " + std::to_string(label) +
                                      " in row " + std::to_string(r));
    labelled++;
  }
  positions = double(all_positions ? rows : labelled);
}

}  // namespace dw
