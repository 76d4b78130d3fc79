#include "core/ops.h"

namespace dw {
namespace ops {

// linear: y = act(x·Wᵀ + b) + residual            x [.., K], weight [N, K], bias [N] → y [.., N], pre [.., N]
//   weight in q8 and compute bf16: rows x are numbers of 16 bits times one scale, max |x| / 32512
// linear_backward_input: dx = (dy·W) ⊙ gelu'(gelu_of) + residual
// linear_backward_weight: dweight += dyᵀ·x, dbias += Σ_rows dy; with x_gelu, x holds what gelu was applied to
// quantize: rows of W [.., K] as int8 and their scales, q[n, k] = round(W[n, k] / s[n]), s[n] = max |W[n, ·]| / 127
// unfold: y[b, t, 3·c + j] = x[b, stride·t + j − 1, c], zero outside; fold: its adjoint

static View with_cols(View v, int64_t cols) {
  if (v.rank == 0) v.rank = 1;
  v.shape[v.rank - 1] = cols;
  return v;
}

void linear(Prepare& p) {
  const View& x = p.tensor("x", kFloat);
  const View& w = p.tensor("weight", kWeight, {kAny, x.cols()});
  const View y = with_cols(x, w.shape[0]);
  p.optional("bias", kF32 | kF64, {w.shape[0]});
  p.like("residual", kFloat, y, true, false);
  p.flag("gelu");
  const bool save = p.flag("save_pre");
  p.dtype("compute");
  const DType out = p.dtype("out");
  p.output_like(y, out);
  if (save) p.output_like(y, out);
  p.finish();
}

void linear_backward_input(Prepare& p) {
  const View& dy = p.tensor("dy", kFloat);
  const View& w = p.tensor("weight", kFloat, {dy.cols(), kAny});
  const View dx = with_cols(dy, w.shape[1]);
  p.like("gelu_of", kFloat, dx, true, false);
  p.like("residual", kFloat, dx, true, false);
  p.dtype("compute");
  p.output_like(dx, p.dtype("out"));
  p.finish();
}

void linear_backward_weight(Prepare& p) {
  const View& dy = p.tensor("dy", kFloat);
  const View& x = p.tensor("x", kFloat);
  p.require(x.rows() == dy.rows(), "x", std::to_string(dy.rows()) + " rows", x.describe());
  p.inout("dweight", kF32 | kF64, {dy.cols(), x.cols()}, true);
  p.inout("dbias", kF32 | kF64, {dy.cols()}, true);
  p.flag("x_gelu");
  p.dtype("compute");
  p.finish();
}

void quantize(Prepare& p) {
  const View& w = p.tensor("weight", kFloat);
  p.like("quantized", kQ8, w, false, true);
  p.finish();
}

void unfold(Prepare& p) {
  const View& x = p.tensor("x", kFloat, {kAny, kAny, kAny});
  const int64_t stride = p.integer("stride", 1, 2);
  const bool first = p.flag("channels_first");
  const int64_t t = first ? x.shape[2] : x.shape[1], c = first ? x.shape[1] : x.shape[2];
  p.output(p.dtype("out"), {x.shape[0], (t + stride - 1) / stride, 3 * c});
  p.finish();
}

void fold(Prepare& p) {
  const View& rows = p.tensor("rows", kFloat, {kAny, kAny, kAny});
  const int64_t t = p.integer("T", 0, int64_t(1) << 40), stride = p.integer("stride", 1, 2);
  p.require(rows.shape[1] == (t + stride - 1) / stride && rows.shape[2] % 3 == 0, "rows",
            "[batch, " + std::to_string((t + stride - 1) / stride) + ", 3·C]", rows.describe());
  p.output(rows.dtype == DType::f64 ? DType::f64 : DType::f32, {rows.shape[0], t, rows.shape[2] / 3});
  p.finish();
}

}  // namespace ops
}  // namespace dw
