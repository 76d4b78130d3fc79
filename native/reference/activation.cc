#include "ops/activation.h"

#include <cmath>

#include "ops/dropout.h"
#include "reference/kernels.h"

namespace dw {
namespace reference {

// y = x·Φ(x)
void gelu(Context&, const Gelu& q) {
  for (int64_t i = 0; i < q.x.size(); i++) {
    const double x = load(q.x, i);
    store(q.y, i, 0.5 * x * std::erfc(-x / std::sqrt(2.0)));
  }
}

// dpre = dy ⊙ (Φ(pre) + pre·φ(pre))
void gelu_backward(Context&, const GeluBackward& q) {
  for (int64_t i = 0; i < q.dy.size(); i++) {
    const double x = load(q.pre, i);
    const double grad = 0.5 * std::erfc(-x / std::sqrt(2.0)) + x * std::exp(-0.5 * x * x) / std::sqrt(2 * M_PI);
    store(q.dpre, i, load(q.dy, i) * grad);
  }
}

// y = scale·x of what is kept, as many times as large as the rest is small
void drop(Context&, const Drop& q) {
  const DropoutDraw draw = q.draw();
  for (int64_t i = 0; i < q.x.size(); i++) {
    const double keep = draw.keep(i);
    store(q.y, i, keep == 0 ? 0 : q.scale * keep * load(q.x, i));
  }
}

}  // namespace reference
}  // namespace dw
