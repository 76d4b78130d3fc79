#include "ops/optimizer.h"

namespace dw {

void GlobalNorm::declare(Prepare& p) {
  p.rest(gradients);
  for (View& g : gradients) p.tensor(g, "gradient", kF32 | kF64);
  p.number(max_norm, "max_norm", 0, 1e300);
  p.number(gradient_scale, "gradient_scale", 0, 1e300);
  p.output(norm, DType::f32, {1});
  p.output(scale, DType::f32, {1});
}

void GlobalNorm::count(Count& c) const {
  int64_t elements = 0;
  for (const View& g : gradients) elements += g.size();
  c.shape({elements});
}

void AdamW::declare(Prepare& p) {
  p.tensor(scale, "scale", kF32, {1});
  int64_t count = int64_t(groups.size());
  p.integer(count, "groups", 0, 1 << 24);
  p.number(lr, "lr", -1e300, 1e300);
  p.number(beta1, "beta1", 0, 1);
  p.number(beta2, "beta2", 0, 1);
  p.number(epsilon, "eps", 0, 1e300);
  p.number(weight_decay, "weight_decay", 0, 1e300);
  p.integer(mode, "mode", 0, 1);
  // Grown as they are found: a call may announce more than it has.
  for (size_t i = 0; i < size_t(count); i++) {
    if (i == groups.size()) groups.emplace_back();
    Group& g = groups[i];
    p.integer(g.step, "step", 0, int64_t(1) << 53);
    p.inout(g.p, "p", kF32 | kF64);
    const unsigned type = 1u << unsigned(g.p.dtype);
    if (g.step == 0)
      p.optional_like(g.gradient, g.p, "gradient", type);
    else
      p.like(g.gradient, g.p, "gradient", type);
    p.inout_like(g.m, g.p, "m", type);
    p.inout_like(g.v, g.p, "v", type);
  }
}

// Per group p, m and v are updated and the gradient is read.
void AdamW::count(Count& c) const {
  int64_t elements = 0;
  for (const Group& g : groups) {
    if (g.step == 0) {
      for (const View* tensor : {&g.p, &g.gradient, &g.m, &g.v}) c.only(*tensor, 0);
      continue;
    }
    for (const View* tensor : {&g.p, &g.m, &g.v}) c.updated(*tensor);
    elements += g.p.size();
  }
  c.shape({elements});
}

}  // namespace dw
