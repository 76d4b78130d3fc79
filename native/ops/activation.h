#pragma once
#include "core/prepare.h"

namespace dw {

// dpre = dy ⊙ gelu'(pre), of one size; dpre in `type`, shaped as pre.
struct GeluBackward {
  View dy, pre;
  DType type = DType::f32;
  View dpre;

  void declare(Prepare& p);
};

}  // namespace dw
