#include "ops/linear.h"

namespace dw {

static View with_cols(View v, int64_t cols) {
  if (v.rank == 0) v.rank = 1;
  v.shape[v.rank - 1] = cols;
  return v;
}

void Linear::declare(Prepare& p) {
  p.tensor(x, "x", kFloat);
  p.tensor(weight, "weight", kWeight, {kAny, x.cols()});
  const View result = with_cols(x, weight.shape[0]);
  p.optional(bias, "bias", kF32 | kF64, {weight.shape[0]});
  p.optional_like(residual, result, "residual", kFloat);
  p.flag(gelu, "gelu");
  p.flag(save_pre, "save_pre");
  p.dtype(compute, "compute");
  p.dtype(type, "out");
  p.output_like(y, result, type);
  if (save_pre) p.output_like(pre, result, type);
}

void Linear::count(Count& c) const {
  c.work.flop = Count::product(double(x.rows()), double(x.cols()), double(weight.shape[0]));
  c.shape({x.rows(), x.cols(), weight.shape[0]});
  c.work.type = compute;
}

void LinearBackwardInput::declare(Prepare& p) {
  p.tensor(dy, "dy", kFloat);
  p.tensor(weight, "weight", kFloat, {dy.cols(), kAny});
  const View result = with_cols(dy, weight.shape[1]);
  p.optional_like(gelu_of, result, "gelu_of", kFloat);
  p.optional_like(residual, result, "residual", kFloat);
  p.dtype(compute, "compute");
  p.dtype(type, "out");
  p.output_like(dx, result, type);
}

void LinearBackwardInput::count(Count& c) const {
  c.work.flop = Count::product(double(dy.rows()), double(dy.cols()), double(weight.shape[1]));
  c.shape({dy.rows(), dy.cols(), weight.shape[1]});
  c.work.type = compute;
}

void LinearBackwardWeight::declare(Prepare& p) {
  p.tensor(dy, "dy", kFloat);
  p.tensor(x, "x", kFloat);
  p.require(
      x.rows() == dy.rows(), "x", [&] { return std::to_string(dy.rows()) + " rows"; }, x);
  p.optional_inout(dweight, "dweight", kF32 | kF64, {dy.cols(), x.cols()});
  p.optional_inout(dbias, "dbias", kF32 | kF64, {dy.cols()});
  p.flag(x_gelu, "x_gelu");
  p.dtype(compute, "compute");
}

void LinearBackwardWeight::count(Count& c) const {
  if (dweight) c.work.flop = Count::product(double(dy.cols()), double(dy.rows()), double(x.cols()));
  c.shape({dy.cols(), dy.rows(), x.cols()});
  c.work.type = compute;
  c.updated(dweight);
  c.updated(dbias);
}

void Quantize::declare(Prepare& p) {
  p.tensor(weight, "weight", kFloat);
  p.inout_like(quantized, weight, "quantized", kQ8);
}

void Unfold::declare(Prepare& p) {
  p.tensor(x, "x", kFloat, {kAny, kAny, kAny});
  p.integer(stride, "stride", 1, 2);
  p.flag(channels_first, "channels_first");
  p.dtype(type, "out");
  p.output(y, type, {x.shape[0], (length() + stride - 1) / stride, 3 * channels()});
}

void Fold::declare(Prepare& p) {
  p.tensor(rows, "rows", kFloat, {kAny, kAny, kAny});
  p.integer(length, "T", 0, int64_t(1) << 40);
  p.integer(stride, "stride", 1, 2);
  const int64_t count = (length + stride - 1) / stride;
  p.require(
      rows.shape[1] == count && rows.shape[2] % 3 == 0, "rows",
      [&] { return "[batch, " + std::to_string(count) + ", 3·C]"; }, rows);
  p.output(dx, rows.dtype == DType::f64 ? DType::f64 : DType::f32, {rows.shape[0], length, rows.shape[2] / 3});
}

}  // namespace dw
