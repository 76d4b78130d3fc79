#include "core/ops.h"

namespace dw {
namespace ops {

// numbers: count, seed, step, op (see core/philox.h). → f32 [count].
static void draw(Prepare& p) {
  const int64_t count = p.integer("count", 0, int64_t(1) << 40);
  p.integer("seed", 0, int64_t(1) << 53);
  p.integer("step", 0, 0xFFFFFFFFll);
  p.integer("op", 0, 0xFFFFFFFFll);
  p.output(DType::f32, {count});
  p.finish();
}
void random_normal(Prepare& p) { draw(p); }
void random_uniform(Prepare& p) { draw(p); }

}  // namespace ops
}  // namespace dw
