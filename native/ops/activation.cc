#include "core/ops.h"

namespace dw {
namespace ops {

// dpre = dy ⊙ gelu'(pre)
void gelu_backward(Prepare& p) {
  const View& dy = p.tensor("dy", kFloat);
  const View& pre = p.tensor("pre", kFloat);
  p.require(dy.size() == pre.size(), "pre", std::to_string(dy.size()) + " elements", pre.describe());
  const DType out = p.dtype("out");
  p.output_like(pre, out);
  p.finish();
}

}  // namespace ops
}  // namespace dw
