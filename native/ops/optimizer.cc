#include "core/ops.h"

namespace dw {
namespace ops {

// any number of gradients, f32 of any shape; numbers: max_norm (0: no clipping), gradient_scale.
// → norm f32 [1], scale f32 [1].
void global_norm(Prepare& p) {
  while (p.more_tensors()) p.tensor("gradient", kF32 | kF64);
  p.number("max_norm", 0, 1e300);
  p.number("gradient_scale", 0, 1e300);
  p.output(DType::f32, {1});
  p.output(DType::f32, {1});
  p.finish();
}

// scale f32 [1], then n groups of four of one shape: p (in place), gradient, m, v (in place). numbers: n, lr, beta1,
// beta2, eps, weight_decay, mode (0 or 1), then one step per group, counted from 1. Step 0 leaves its group untouched;
// its gradient may be null.
void adamw(Prepare& p) {
  p.tensor("scale", kF32, {1});
  const int64_t groups = p.integer("groups", 0, 1 << 24);
  p.number("lr", -1e300, 1e300);
  p.number("beta1", 0, 1);
  p.number("beta2", 0, 1);
  p.number("eps", 0, 1e300);
  p.number("weight_decay", 0, 1e300);
  p.integer("mode", 0, 1);
  for (int64_t i = 0; i < groups; i++) {
    const int64_t step = p.integer("step", 0, int64_t(1) << 53);
    const View& param = p.inout("p", kF32 | kF64);
    const unsigned type = 1u << unsigned(param.dtype);
    p.like("gradient", type, param, step == 0, false);
    p.like("m", type, param, false, true);
    p.like("v", type, param, false, true);
  }
  p.finish();
}

}  // namespace ops
}  // namespace dw
