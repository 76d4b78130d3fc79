// The optimiser as plain loops in double.
//   global_norm  norm = a·sqrt(Σ g²), a the gradient scale;
//                scale = a·min(1, max_norm / (norm + 1e-6)), 0 when norm is not finite
//   adamw        g' = scale·g;  m = β1·m + (1-β1)·g';  v = β2·v + (1-β2)·g'²
//     mode 0     p = p·(1 - lr·wd) - lr·(m / (1-β1^t)) / (sqrt(v / (1-β2^t)) + eps)
//     mode 1     q = p - lr·sqrt(1-β2^t)/(1-β1^t)·m / (sqrt(v) + eps);  p = q·(1 - lr·wd)
// A scale of 0 (the norm was not finite) leaves everything untouched.
#include "ops/optimizer.h"

#include <cmath>

#include "reference/kernels.h"

namespace dw {
namespace reference {

void global_norm(Context&, const GlobalNorm& q) {
  const double max_norm = q.max_norm, a = q.gradient_scale;
  double sum = 0;
  for (const View& g : q.gradients)
    for (int64_t i = 0; i < g.size(); i++) sum += load(g, i) * load(g, i);
  const double norm = a * std::sqrt(sum);
  store(q.norm, 0, norm);
  const double clip = max_norm > 0 ? std::fmin(1, max_norm / (norm + 1e-6)) : 1;
  store(q.scale, 0, std::isfinite(float(norm)) ? a * clip : 0);
}

void adamw(Context&, const AdamW& q) {
  const double scale = load(q.scale, 0);
  const double lr = q.lr, beta1 = q.beta1, beta2 = q.beta2, eps = q.epsilon, decay = 1 - lr * q.weight_decay;
  const bool bias_in_eps = q.mode == 0;
  if (scale == 0) return;
  for (const AdamW::Group& a : q.groups) {
    const double t = double(a.step);
    if (t == 0) continue;
    const double c1 = 1 - std::pow(beta1, t), c2 = 1 - std::pow(beta2, t);
    for (int64_t i = 0; i < a.p.size(); i++) {
      const double g = scale * load(a.gradient, i);
      const double m = beta1 * load(a.m, i) + (1 - beta1) * g, v = beta2 * load(a.v, i) + (1 - beta2) * g * g;
      double p = load(a.p, i);
      if (bias_in_eps)
        p = p * decay - lr * (m / c1) / (std::sqrt(v / c2) + eps);
      else
        p = (p - lr * std::sqrt(c2) / c1 * m / (std::sqrt(v) + eps)) * decay;
      store(a.p, i, p);
      store(a.m, i, m);
      store(a.v, i, v);
    }
  }
}

}  // namespace reference
}  // namespace dw
