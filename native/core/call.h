#pragma once
#include <memory>
#include <vector>

#include "core/tensor.h"

namespace dw {

// A checked call: what the kernels get. Tensors and numbers stand in the order in which ops::x asked for them.
struct Call {
  std::vector<View> in;
  std::vector<View> out;
  std::vector<double> num;
  std::vector<std::shared_ptr<Storage>> storage;  // of `in`, same order: keeps memory alive, holds packed weights
  int64_t integer(size_t i) const { return int64_t(num[i]); }
};

}  // namespace dw
