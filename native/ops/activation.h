#pragma once
#include "core/prepare.h"

namespace dw {

// y = gelu(x); y in `type`, shaped as x.
struct Gelu {
  View x;
  DType type = DType::f32;
  View y;

  void declare(Prepare& p);
};

// dpre = dy ⊙ gelu'(pre), of one size; dpre in `type`, shaped as pre.
struct GeluBackward {
  View dy, pre;
  DType type = DType::f32;
  View dpre;

  void declare(Prepare& p);
};

}  // namespace dw
