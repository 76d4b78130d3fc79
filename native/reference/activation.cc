#include <cmath>

#include "core/ops.h"

namespace dw {
namespace reference {

// dpre = dy ⊙ (Φ(pre) + pre·φ(pre))
void gelu_backward(Context&, const Call& c) {
  for (int64_t i = 0; i < c.in[0].size(); i++) {
    const double x = load(c.in[1], i);
    const double grad = 0.5 * std::erfc(-x / std::sqrt(2.0)) + x * std::exp(-0.5 * x * x) / std::sqrt(2 * M_PI);
    store(c.out[0], i, load(c.in[0], i) * grad);
  }
}

}  // namespace reference
}  // namespace dw
