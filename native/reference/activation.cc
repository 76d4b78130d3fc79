#include "ops/activation.h"

#include <cmath>

#include "reference/kernels.h"

namespace dw {
namespace reference {

// dpre = dy ⊙ (Φ(pre) + pre·φ(pre))
void gelu_backward(Context&, const GeluBackward& q) {
  for (int64_t i = 0; i < q.dy.size(); i++) {
    const double x = load(q.pre, i);
    const double grad = 0.5 * std::erfc(-x / std::sqrt(2.0)) + x * std::exp(-0.5 * x * x) / std::sqrt(2 * M_PI);
    store(q.dpre, i, load(q.dy, i) * grad);
  }
}

}  // namespace reference
}  // namespace dw
