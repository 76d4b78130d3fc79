// The optimiser; the formulas stand in reference/optimizer.cc.
#pragma once
#include "core/prepare.h"
#include "core/work.h"

namespace dw {

// Any number of gradients of any shape → norm f32 [1], scale f32 [1]
struct GlobalNorm {
  std::vector<View> gradients;
  double max_norm = 0;  // 0: no clipping
  double gradient_scale = 1;
  View norm, scale;

  void declare(Prepare& p);
  void count(Count& c) const;
};

// scale f32 [1], and groups of four tensors of one shape, of which all but the gradient are updated.
struct AdamW {
  struct Group {
    int64_t step = 0;  // counted from 1; 0 leaves the group untouched, and then its gradient may be null
    View p, gradient, m, v;
  };
  View scale;
  double lr = 0, beta1 = 0, beta2 = 0, epsilon = 0, weight_decay = 0;
  int64_t mode = 0;
  std::vector<Group> groups;

  void declare(Prepare& p);
  void count(Count& c) const;
};

}  // namespace dw
