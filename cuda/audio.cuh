// What the audio kernels share.
#pragma once
#include "core/audio.h"
#include "math.cuh"
#include "runtime/trap.h"

namespace dw {
namespace cuda {

// A sample, or 0 after a trap.
__device__ inline float checked_sample(const float* x, int64_t i, const Trap& trap) {
  const float v = x[i];
  if (fabsf(v) <= kLargestSample) return v;
  trap(TrapKind::samples, i, int64_t(__float_as_uint(v)), 0);
  return 0;
}

}  // namespace cuda
}  // namespace dw
