#pragma once
#include "core/prepare.h"

namespace dw {

// → values f32 [count]: element i is normal_at(i) or uniform_at(i) of core/philox.h.
struct Draw {
  int64_t count = 0;
  uint64_t seed = 0;
  uint32_t step = 0, op = 0;
  View values;

  void declare(Prepare& p);
};

}  // namespace dw
