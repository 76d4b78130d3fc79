#include "ops/distill_loss.h"

#include "core/ops.h"

namespace dw {

DistillLoss distill_loss_call(const Call& c) {
  const int64_t rows = c.in[0].rows(), width = c.in[0].cols(), vocabulary = c.in[1].rows();
  const bool all = c.num[5] != 0;
  int64_t labelled = 0;
  for (int64_t r = 0; r < rows; r++) {
    const int32_t label = c.in[2].as<int32_t>()[r];
    if (label == kIgnored) continue;
    if (label < 0 || label >= vocabulary)
      throw Error("ERR_ARGUMENT", "distill_loss: argument 'labels': expected token ids below " +
                                      std::to_string(vocabulary) + " or -100, got " + std::to_string(label) +
                                      " in row " + std::to_string(r));
    labelled++;
  }
  return {c.in[0],
          c.in[1],
          c.in[2],
          c.in[3],
          c.in[4],
          c.in[5],
          rows,
          width,
          vocabulary,
          c.in[3] ? c.in[3].cols() : 0,
          c.num[0],
          c.num[1],
          Distill(c.integer(2)),
          c.num[3],
          c.num[4],
          all,
          c.num[6] != 0,
          DType(c.integer(7)),
          c.integer(8),
          c.num[9],
          labelled,
          double(all ? rows : labelled)};
}

namespace ops {

// Cross-entropy and distillation of a language model's last hidden rows, and their gradient.
// Tensors: hidden [N, D], weight [V, D], labels i32 [N] (-100: ignored), teacher_hidden? [N, Dt], teacher_weight? [V,
// Dt],
//   dweight? [V, D] (added to).
// Numbers: label smoothing, temperature, kind (0 none, 1 JS, 2 KL(T||S)), ce_weight, kd_weight, kd_all_positions, grad,
//   compute, workspace bytes, epsilon inside JS's log(m + epsilon).
// Outputs: stats [4] = (mean CE over labelled rows, mean divergence·temperature², total, labelled rows), ce_rows [N],
//   kd_rows [N] (each ·temperature²; 0 for rows that do not count), dhidden [N, D] = d total / d hidden ([0, D] without
//   grad).
void distill_loss(Prepare& p) {
  const View& hidden = p.tensor("hidden", kFloat, {kAny, kAny});
  const int64_t rows = hidden.shape[0], width = hidden.shape[1];
  p.require(width > 0, "hidden", "rows of at least one column", hidden.describe());
  const View& weight = p.tensor("weight", kFloat, {kAny, width});
  const int64_t vocabulary = weight.shape[0];
  p.require(vocabulary > 0 && vocabulary <= INT32_MAX, "weight", "1 to 2^31 - 1 tokens", weight.describe());
  p.tensor("labels", kI32, {rows});
  const View& teacher = p.optional("teacher_hidden", kFloat, {rows, kAny});
  const View& head = p.optional("teacher_weight", kFloat, {vocabulary, teacher ? teacher.shape[1] : kAny});
  const View& dweight = p.inout("dweight", kF32 | kF64, {vocabulary, width}, true);
  p.number("smoothing", 0, 1);
  const double temperature = p.number("temperature", 0, 1e6);
  p.require(temperature > 0, "temperature", "more than 0", std::to_string(temperature));
  const int64_t kind = p.integer("kind", 0, 2);
  p.number("ce_weight", -1e30, 1e30);
  p.number("kd_weight", -1e30, 1e30);
  p.flag("kd_all_positions");
  const bool grad = p.flag("grad");
  p.dtype("compute");
  p.integer("workspace", 1 << 20, int64_t(1) << 46);
  p.number("epsilon", 0, 1);
  const bool both = bool(teacher) && bool(head);
  if (kind == 0 ? bool(teacher) || bool(head) : !both)
    p.fail("ERR_ARGUMENT", "teacher_hidden", kind == 0 ? "no teacher for kind 0" : "a teacher's rows and weight",
           kind == 0 ? "a teacher" : "null");
  if (dweight && !grad) p.fail("ERR_ARGUMENT", "dweight", "null when no gradient is asked", dweight.describe());
  const DType out = hidden.dtype == DType::f64 ? DType::f64 : DType::f32;
  p.output(out, {4});
  p.output(out, {rows});
  p.output(out, {rows});
  p.output(out, {grad ? rows : 0, width});
  p.finish();
}

}  // namespace ops
}  // namespace dw
