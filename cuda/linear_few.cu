// y = act(x·Wᵀ + b) + residual for 1 to 16 rows, in one kernel             x [R, K], W [N, K] → y [R, N]
// What it costs is to read W, once: a warp, or up to four with a part of K each, takes one row of W in pieces of 16
// bytes a lane, and has four of them under way. The rows of x come out of the caches. A row's sums are taken in the
// same order whatever rows stand beside it.
#include "linear_few.h"
#include "runtime/launch.cuh"

namespace dw {
namespace cuda {

namespace {

constexpr int kWarps = 4;
constexpr int kAhead = 4;

template <int N>
__device__ inline void take(float (&x)[N], const Raw<N>& raw, const Any& from, bool round) {
  unpack(x, raw, from.bf16);
  if (!round) return;
#pragma unroll
  for (int n = 0; n < N; n++) x[n] = __bfloat162float(__float2bfloat16_rn(x[n]));
}

template <int kRows, int N>
__global__ void __launch_bounds__(32 * kWarps) few_kernel(FewLinear z) {
  __shared__ float room[kWarps][kRows];
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32, part = warp % z.parts;
  const int64_t column = int64_t(blockIdx.x) * (kWarps / z.parts) + warp / z.parts;
  const int64_t step = int64_t(z.parts) * 32 * N, end = column < z.n ? z.k : 0;
  float sum[kRows] = {};
  for (int64_t from = (int64_t(part) * 32 + lane) * N; from < end; from += kAhead * step) {
    Raw<N> weights[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; i++)
      if (from + i * step < end) fetch(weights[i], z.w, column * z.k + from + i * step);
#pragma unroll
    for (int i = 0; i < kAhead; i++) {
      const int64_t k = from + i * step;
      if (k >= end) break;
      float w[N], x[N];
      take(w, weights[i], z.w, z.round_w);
#pragma unroll
      for (int r = 0; r < kRows; r++) {
        if (r >= z.rows) break;
        Raw<N> raw;
        fetch(raw, z.x, r * z.k + k);
        take(x, raw, z.x, z.round_x);
#pragma unroll
        for (int n = 0; n < N; n++) sum[r] = fmaf(x[n], w[n], sum[r]);
      }
    }
  }
  float v[1] = {};  // lane r: of row r
#pragma unroll
  for (int r = 0; r < kRows; r++) {
    const float whole = warp_sum(sum[r]);
    if (lane == r) v[0] = whole;
  }
  if (lane < kRows) room[warp][lane] = v[0];
  __syncthreads();
  if (part != 0 || column >= z.n || lane >= z.rows) return;
  for (int p = 1; p < z.parts; p++) v[0] += room[warp + p][lane];
  const int64_t at = lane * z.n + column;
  if (z.bias) v[0] += z.bias[column];
  if (z.pre) store(z.pre, at, v);
  if (z.gelu) v[0] = gelu(v[0]);
  if (z.residual) {
    float rest[1];
    load(rest, z.residual, at);
    v[0] += rest[0];
  }
  store(z.y, at, v);
}

}  // namespace

void linear_few(Context& c, FewLinear z) {
  with_eight(z.k, {z.x.data, z.w.data}, [&](auto lanes) {
    constexpr int N = decltype(lanes)::value;
    const int64_t pieces = (z.k + 32 * N - 1) / (32 * N);
    const auto blocks = [&] { return (z.n * z.parts + kWarps - 1) / kWarps; };
    // More warps for a column while they have work, until all of it is under way and every processor has some.
    for (z.parts = 1; z.parts < kWarps && z.parts < pieces;) {
      if (pieces <= kAhead * z.parts && blocks() >= c.processors) break;
      z.parts *= 2;
    }
    const auto kernel = z.rows <= 1 ? few_kernel<1, N> : z.rows <= 4 ? few_kernel<4, N> : few_kernel<kFewRows, N>;
    launch(c, kernel, blocks(), 32 * kWarps, z);
  });
}

}  // namespace cuda
}  // namespace dw
