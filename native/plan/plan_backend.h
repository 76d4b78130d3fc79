// A backend that runs nothing and holds nothing: what a step takes in memory and in work follows from its calls alone.
#pragma once
#include <memory>

#include "core/backend.h"

namespace dw {

// Counts for the processor's kernels. `pairs`: those of bf16 take two numbers in a word. Values that are read are
// zeros.
std::unique_ptr<Backend> make_plan_backend(int threads, bool pairs);

}  // namespace dw
