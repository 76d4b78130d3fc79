#include "ops/norm.h"

namespace dw {

void LayerNorm::declare(Prepare& p) {
  p.tensor(x, "x", kFloat);
  p.require(x.rank >= 1 && x.cols() >= 1, "x", "rows of at least one column", x);
  p.tensor(weight, "weight", kF32 | kF64, {x.cols()});
  p.tensor(bias, "bias", kF32 | kF64, {x.cols()});
  p.number(epsilon, "eps", 0, 1);
  p.dtype(type, "out");
  const DType statistics = x.dtype == DType::f64 ? DType::f64 : DType::f32;
  p.output_like(y, x, type);
  p.output(mean, statistics, {x.rows()});
  p.output(rstd, statistics, {x.rows()});
}

void LayerNormBackward::declare(Prepare& p) {
  p.tensor(dy, "dy", kFloat);
  p.require(dy.rank >= 1 && dy.cols() >= 1, "dy", "rows of at least one column", dy);
  p.like(x, dy, "x", kFloat);
  p.tensor(weight, "weight", kF32 | kF64, {x.cols()});
  p.tensor(mean, "mean", kF32 | kF64, {x.rows()});
  p.tensor(rstd, "rstd", kF32 | kF64, {x.rows()});
  p.optional_like(residual, dy, "residual", kFloat);
  p.optional_inout(dweight, "dweight", kF32 | kF64, {x.cols()});
  p.optional_inout(dbias, "dbias", kF32 | kF64, {x.cols()});
  p.dtype(type, "out");
  p.output_like(dx, x, type);
}

void LayerNormBackward::count(Count& c) const {
  c.updated(dweight);
  c.updated(dbias);
}

}  // namespace dw
