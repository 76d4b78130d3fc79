#include "ops/activation.h"

namespace dw {

void Gelu::declare(Prepare& p) {
  p.tensor(x, "x", kFloat);
  p.dtype(type, "out");
  p.output_like(y, x, type);
}

void GeluBackward::declare(Prepare& p) {
  p.tensor(dy, "dy", kFloat);
  p.tensor(pre, "pre", kFloat);
  p.require(
      dy.size() == pre.size(), "pre", [&] { return std::to_string(dy.size()) + " elements"; }, pre);
  p.dtype(type, "out");
  p.output_like(dpre, pre, type);
}

}  // namespace dw
