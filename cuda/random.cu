#include "core/philox.h"
#include "kernels.h"
#include "math.cuh"
#include "ops/random.h"
#include "runtime/launch.cuh"

namespace dw {
namespace cuda {

namespace {

// A thread draws the four words of a counter. Box-Muller as normal_at, in f32: the angle in half turns is exact.
template <bool kNormal>
__global__ void draw_kernel(float* __restrict__ out, int64_t count, uint32_t step, uint32_t op, uint64_t seed) {
  DW_GRID_STRIDE(block, (count + 3) / 4) {
    const Philox4 r = philox(uint64_t(block), step, op, seed);
    float v[4];
    if (kNormal) {
#pragma unroll
      for (int i = 0; i < 4; i += 2) {
        const float radius = sqrtf(-2 * logf(float((r.v[i] >> 8) + 1) * (1.0f / 16777216.0f)));
        float sine, cosine;
        sincospif(float(r.v[i + 1] >> 8) * (1.0f / 8388608.0f), &sine, &cosine);
        v[i] = radius * cosine;
        v[i + 1] = radius * sine;
      }
    } else {
#pragma unroll
      for (int i = 0; i < 4; i++) v[i] = uniform_of(r.v[i]);
    }
    const int64_t i = block * 4;
    if (i + 4 <= count)
      *reinterpret_cast<float4*>(out + i) = make_float4(v[0], v[1], v[2], v[3]);
    else
      for (int e = 0; i + e < count; e++) out[i + e] = v[e];
  }
}

template <bool kNormal>
void draw(Context& c, const Draw& q) {
  if (q.count == 0) return;
  launch(c, draw_kernel<kNormal>, grid_for((q.count + 3) / 4, c.processors), kThreads, q.values.as<float>(), q.count,
         q.step, q.op, q.seed);
}

}  // namespace

// out[i] = normal_at(i) and uniform_at(i) of core/philox.h          out f32 [count]
void random_normal(Context& c, const Draw& q) { draw<true>(c, q); }
void random_uniform(Context& c, const Draw& q) { draw<false>(c, q); }

}  // namespace cuda
}  // namespace dw
