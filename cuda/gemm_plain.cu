// C = A·B + beta·addend + bias for what cuBLASLt has no algorithm for: odd strides and addresses of bf16. Tiles of 64 ×
// 64, 256 threads with 4 × 4 elements each, sums in f32.
#include "gemm.h"
#include "math.cuh"
#include "runtime/launch.cuh"

namespace dw {
namespace cuda {

namespace {

constexpr int kSide = 64, kDepth = 16;

template <class T, class C>
__global__ void __launch_bounds__(kThreads) plain_kernel(Gemm g, int64_t tiles_m, int64_t tiles_n) {
  __shared__ float ta[kDepth][kSide + 1], tb[kDepth][kSide + 1];
  const int64_t batch = blockIdx.x / (tiles_m * tiles_n), tile = blockIdx.x % (tiles_m * tiles_n);
  const int64_t i0 = tile / tiles_n * kSide, j0 = tile % tiles_n * kSide;
  const T *a = static_cast<const T*>(g.a) + batch * g.stride_a, *b = static_cast<const T*>(g.b) + batch * g.stride_b;
  const int tid = int(threadIdx.x), ty = tid / 16, tx = tid % 16;
  float sum[4][4] = {};
  for (int64_t k0 = 0; k0 < g.k; k0 += kDepth) {
    __syncthreads();
    // Neighbours in memory are read by neighbours of a warp.
    for (int e = tid; e < kSide * kDepth; e += kThreads) {
      const int row = g.a_transposed ? e % kSide : e / kDepth, depth = g.a_transposed ? e / kSide : e % kDepth;
      const int64_t i = i0 + row, k = k0 + depth;
      ta[depth][row] = i < g.m && k < g.k ? get(a, g.a_transposed ? k * g.lda + i : i * g.lda + k) : 0.0f;
    }
    for (int e = tid; e < kSide * kDepth; e += kThreads) {
      const int row = g.b_transposed ? e / kDepth : e % kSide, depth = g.b_transposed ? e % kDepth : e / kSide;
      const int64_t j = j0 + row, k = k0 + depth;
      tb[depth][row] = j < g.n && k < g.k ? get(b, g.b_transposed ? j * g.ldb + k : k * g.ldb + j) : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kDepth; k++)
#pragma unroll
      for (int y = 0; y < 4; y++)
#pragma unroll
        for (int x = 0; x < 4; x++) sum[y][x] = fmaf(ta[k][ty + 16 * y], tb[k][tx + 16 * x], sum[y][x]);
  }
  C* c = static_cast<C*>(g.c);
  const C* addend = static_cast<const C*>(g.addend ? g.addend : g.c);
#pragma unroll
  for (int y = 0; y < 4; y++)
#pragma unroll
    for (int x = 0; x < 4; x++) {
      const int64_t i = i0 + ty + 16 * y, j = j0 + tx + 16 * x, at = batch * g.stride_c + i * g.ldc + j;
      if (i >= g.m || j >= g.n) continue;
      float v = sum[y][x];
      if (g.beta != 0) v += g.beta * get(addend, at);
      if (g.bias) v += g.bias[j];
      put(c, at, v);
    }
}

}  // namespace

void gemm_plain(Context& context, const Gemm& g) {
  const int64_t tiles_m = (g.m + kSide - 1) / kSide, tiles_n = (g.n + kSide - 1) / kSide;
  with_type(g.compute, [&](auto* tt) {
    with_type(g.c_type, [&](auto* tc) {
      using T = std::remove_pointer_t<decltype(tt)>;
      using C = std::remove_pointer_t<decltype(tc)>;
      launch(context, plain_kernel<T, C>, g.batch * tiles_m * tiles_n, kThreads, g, tiles_m, tiles_n);
    });
  });
}

}  // namespace cuda
}  // namespace dw
