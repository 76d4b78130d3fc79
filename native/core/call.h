#pragma once
#include <memory>
#include <vector>

#include "core/tensor.h"

namespace dw {

// A call as it travels: tensors and numbers in the order in which its operation declares them (core/prepare.h), which
// alone knows what they are.
struct Call {
  std::vector<View> in;
  std::vector<View> out;
  std::vector<double> num;
  std::vector<std::shared_ptr<Storage>> storage;  // of `in`, same order: keeps memory alive, holds packed weights
};

}  // namespace dw
