// The optimiser as plain loops in double.
//   global_norm  norm = a·sqrt(Σ g²), a the gradient scale;  scale = a·min(1, max_norm / (norm + 1e-6)), 0 when norm is
//   not finite adamw        g' = scale·g;  m = β1·m + (1-β1)·g';  v = β2·v + (1-β2)·g'²
//     mode 0     p = p·(1 - lr·wd) - lr·(m / (1-β1^t)) / (sqrt(v / (1-β2^t)) + eps)
//     mode 1     q = p - lr·sqrt(1-β2^t)/(1-β1^t)·m / (sqrt(v) + eps);  p = q·(1 - lr·wd)
// A scale of 0 (the norm was not finite) leaves everything untouched.
#include <cmath>

#include "core/ops.h"

namespace dw {
namespace reference {

void global_norm(Context&, const Call& c) {
  const double max_norm = c.num[0], a = c.num[1];
  double sum = 0;
  for (const View& g : c.in)
    for (int64_t i = 0; i < g.size(); i++) sum += load(g, i) * load(g, i);
  const double norm = a * std::sqrt(sum);
  store(c.out[0], 0, norm);
  const double clip = max_norm > 0 ? std::fmin(1, max_norm / (norm + 1e-6)) : 1;
  store(c.out[1], 0, std::isfinite(float(norm)) ? a * clip : 0);
}

void adamw(Context&, const Call& c) {
  const double scale = load(c.in[0], 0);
  const double lr = c.num[1], beta1 = c.num[2], beta2 = c.num[3], eps = c.num[4], decay = 1 - lr * c.num[5];
  const bool bias_in_eps = c.num[6] == 0;
  if (scale == 0) return;
  for (int64_t group = 0; group < c.integer(0); group++) {
    const double t = c.num[size_t(7 + group)];
    if (t == 0) continue;
    const View* a = &c.in[size_t(1 + 4 * group)];
    const double c1 = 1 - std::pow(beta1, t), c2 = 1 - std::pow(beta2, t);
    for (int64_t i = 0; i < a[0].size(); i++) {
      const double g = scale * load(a[1], i);
      const double m = beta1 * load(a[2], i) + (1 - beta1) * g, v = beta2 * load(a[3], i) + (1 - beta2) * g * g;
      double p = load(a[0], i);
      if (bias_in_eps)
        p = p * decay - lr * (m / c1) / (std::sqrt(v / c2) + eps);
      else
        p = (p - lr * std::sqrt(c2) / c1 * m / (std::sqrt(v) + eps)) * decay;
      store(a[0], i, p);
      store(a[2], i, m);
      store(a[3], i, v);
    }
  }
}

}  // namespace reference
}  // namespace dw
