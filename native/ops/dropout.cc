#include "ops/dropout.h"

#include "core/philox.h"

namespace dw {

double DropoutDraw::keep(int64_t i) const {
  if (mask) return load(*mask, i) / (1 - p);
  if (p == 0) return 1;
  return kept_at(uint64_t(i), float(p), step, op, seed) ? 1 / (1 - p) : 0;
}

void Drop::declare(Prepare& prepare) {
  prepare.tensor(x, "x", kFloat);
  prepare.optional_like(mask, x, "mask", kF32);
  prepare.number(p, "p", 0, 0.999999);
  prepare.number(scale, "scale", -1e30, 1e30);
  prepare.integer(seed, "seed", 0, (int64_t(1) << 53) - 1);
  prepare.integer(step, "step", 0, 0xFFFFFFFF);
  prepare.integer(op, "op", 0, 0xFFFFFFFF);
  prepare.dtype(type, "out");
  prepare.output_like(y, x, type);
}

}  // namespace dw
