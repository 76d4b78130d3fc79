#include "ops/gate_draws.h"

namespace dw {

double GateDraws::noise_of(int64_t row) const {
  if (alpha == 0) return 0;
  if (noise) return load(noise, row);
  return normal_at(uint64_t(row), step, noise_op(), seed);
}

void GateDraws::declare_masks(Prepare& p, int64_t rows, int64_t width) {
  p.optional(gate_mask, "gate_mask", kF32, {rows, width});
  p.optional(expert_mask, "expert_mask", kF32, {rows, width});
}

void GateDraws::declare_settings(Prepare& p) {
  p.flag(skip, "skip");
  p.number(alpha, "alpha", 0, 1e6);
  p.number(gate_dropout, "gate_dropout", 0, 0.999999);
  p.number(expert_dropout, "expert_dropout", 0, 0.999999);
  p.integer(seed, "seed", 0, (int64_t(1) << 53) - 1);
  p.integer(step, "step", 0, 0xFFFFFFFF);
  p.integer(op, "op", 0, 0xFFFFFFFF - kExpertMask);
  p.flag(straight, "straight");
}

}  // namespace dw
