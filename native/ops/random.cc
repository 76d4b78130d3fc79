#include "ops/random.h"

namespace dw {

void Draw::declare(Prepare& p) {
  p.integer(count, "count", 0, int64_t(1) << 40);
  p.integer(seed, "seed", 0, int64_t(1) << 53);
  p.integer(step, "step", 0, 0xFFFFFFFFll);
  p.integer(op, "op", 0, 0xFFFFFFFFll);
  p.output(values, DType::f32, {count});
}

}  // namespace dw
