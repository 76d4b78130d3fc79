#pragma once
#include "core/prepare.h"

namespace dw {

// Dropout of a tensor: elements are kept by a mask (1 keeps), or drawn.
struct DropoutDraw {
  const View* mask;  // null: drawn
  double p;
  uint64_t seed;
  uint32_t step, op;

  // The factor of element i: 0, or 1 / (1 - p).
  double keep(int64_t i) const;
};

// y = scale·drop_p(x); y in `type`, shaped as x. It is its own adjoint.
struct Drop {
  View x, mask;  // mask like x, or null: drawn
  double p = 0, scale = 1;
  uint64_t seed = 0;
  uint32_t step = 0, op = 0;
  DType type = DType::f32;
  View y;

  DropoutDraw draw() const { return {mask ? &mask : nullptr, p, seed, step, op}; }
  void declare(Prepare& p);
};

}  // namespace dw
