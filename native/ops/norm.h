// Layer normalisation; the formulas stand in reference/norm.cc.
#pragma once
#include "core/prepare.h"
#include "core/work.h"

namespace dw {

// x, y [.., D], y in `type`; weight, bias [D]; mean, rstd [rows]
struct LayerNorm {
  View x, weight, bias;
  double epsilon = 0;
  DType type = DType::f32;
  View y, mean, rstd;

  void declare(Prepare& p);
};

// dy, x, residual?, dx [.., D], dx in `type`; weight, and dweight? and dbias?, which are added to, [D]; mean, rstd [rows]
struct LayerNormBackward {
  View dy, x, weight, mean, rstd, residual, dweight, dbias;
  DType type = DType::f32;
  View dx;

  void declare(Prepare& p);
  void count(Count& c) const;
};

}  // namespace dw
