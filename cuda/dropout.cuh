// The factors of dropout, N together.
#pragma once
#include "core/philox.h"
#include "lanes.cuh"
#include "ops/dropout.h"

namespace dw {
namespace cuda {

// The factor of an element: 0, or 1 / (1 - p).
struct Dropout {
  const float* mask;  // explicit keep mask, or null: drawn
  float p, scale;
  uint32_t step, op;
  uint64_t seed;
  bool any() const { return mask || p > 0; }
};

inline Dropout dropout(const DropoutDraw& d) {
  const float p = float(d.p);
  return {d.mask ? d.mask->as<float>() : nullptr, p, 1 / (1 - p), d.step, d.op, d.seed};
}

// k[n] of elements i + n; i is a multiple of N.
template <int N>
__device__ inline void keep(float (&k)[N], const Dropout& d, int64_t i) {
  if (d.mask) {
    load(k, d.mask, i);
#pragma unroll
    for (int n = 0; n < N; n++) k[n] *= d.scale;
  } else if (d.p > 0) {
    const Philox4 r = philox(uint64_t(i) / 4, d.step, d.op, d.seed);
#pragma unroll
    for (int n = 0; n < N; n++) k[n] = uniform_of(r.v[N == 4 ? n : int(i % 4)]) >= d.p ? d.scale : 0.0f;
  } else {
#pragma unroll
    for (int n = 0; n < N; n++) k[n] = 1;
  }
}

}  // namespace cuda
}  // namespace dw
