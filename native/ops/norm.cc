#include "core/ops.h"

namespace dw {
namespace ops {

namespace {

DType statistics(const View& x) { return x.dtype == DType::f64 ? DType::f64 : DType::f32; }

}  // namespace

// y [.., D], mean f32 [rows], rstd f32 [rows] = layer_norm(x [.., D], weight [D], bias [D]; eps, out dtype)
void layer_norm(Prepare& p) {
  const View x = p.tensor("x", kFloat);
  p.require(x.rank >= 1 && x.cols() >= 1, "x", "rows of at least one column", x.describe());
  p.tensor("weight", kF32 | kF64, {x.cols()});
  p.tensor("bias", kF32 | kF64, {x.cols()});
  p.number("eps", 0, 1);
  const DType out = p.dtype("out");
  p.output_like(x, out);
  p.output(statistics(x), {x.rows()});
  p.output(statistics(x), {x.rows()});
  p.finish();
}

// dx [.., D] = layer_norm_backward(dy [.., D], x [.., D], weight [D], mean [rows], rstd [rows], residual? [.., D],
// inout dweight? [D], inout dbias? [D]; out dtype)
void layer_norm_backward(Prepare& p) {
  const View dy = p.tensor("dy", kFloat);
  p.require(dy.rank >= 1 && dy.cols() >= 1, "dy", "rows of at least one column", dy.describe());
  const View x = p.like("x", kFloat, dy, false, false);
  p.tensor("weight", kF32 | kF64, {x.cols()});
  p.tensor("mean", kF32 | kF64, {x.rows()});
  p.tensor("rstd", kF32 | kF64, {x.rows()});
  p.like("residual", kFloat, dy, true, false);
  p.inout("dweight", kF32 | kF64, {x.cols()}, true);
  p.inout("dbias", kF32 | kF64, {x.cols()}, true);
  const DType out = p.dtype("out");
  p.output_like(x, out);
  p.finish();
}

}  // namespace ops
}  // namespace dw
