// Layer norm over rows of D columns. A warp has a row; up to 1280 columns stay in its registers, so that memory is read
// once, with 16-byte loads. Wider and unaligned rows are read again (from the caches) for each step. Sums of the
// forward pass are in double: they cost less than the memory that is waited for, and no mean is too far off.
#include "columns.h"
#include "kernels.h"
#include "lanes.cuh"
#include "ops/norm.h"
#include "runtime/launch.cuh"

namespace dw {
namespace cuda {

namespace {

constexpr int kRowsOfBlock = kThreads / 32;

// Visits the columns of a lane: N at a time, kPer times from registers, or all of them when kPer is 0.
template <int N, int kPer>
struct Columns {
  int64_t width;
  template <class Body>
  __device__ void each(const Body& body) const {
    if (kPer > 0) {
#pragma unroll
      for (int i = 0; i < (kPer > 0 ? kPer : 1); i++) {
        const int64_t column = (int64_t(i) * 32 + threadIdx.x % 32) * N;
        if (column < width) body(i, column);
      }
    } else {
      for (int64_t column = threadIdx.x % 32 * N; column < width; column += 32 * N) body(0, column);
    }
  }
};

template <int N, int kPer>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(Any x, Any weight, Any bias, Any y, float* __restrict__ means, float* __restrict__ rstds,
                   int64_t rows, int64_t width, double eps) {
  const int64_t r = int64_t(blockIdx.x) * kRowsOfBlock + threadIdx.x / 32;
  if (r >= rows) return;
  const Columns<N, kPer> columns{width};
  Raw<N> raw[kPer > 0 ? kPer : 1];
  if (kPer > 0) columns.each([&](int i, int64_t column) { fetch(raw[i], x, r * width + column); });
  const auto row = [&](float(&v)[N], int i, int64_t column) {
    if (kPer == 0) fetch(raw[0], x, r * width + column);
    unpack(v, raw[i], x.bf16);
  };
  double sum = 0;
  columns.each([&](int i, int64_t column) {
    float v[N];
    row(v, i, column);
#pragma unroll
    for (int n = 0; n < N; n++) sum += double(v[n]);
  });
  const double mean = warp_sum(sum) / double(width);
  sum = 0;
  columns.each([&](int i, int64_t column) {
    float v[N];
    row(v, i, column);
#pragma unroll
    for (int n = 0; n < N; n++) sum += (double(v[n]) - mean) * (double(v[n]) - mean);
  });
  const float m = float(mean), rstd = float(1 / sqrt(warp_sum(sum) / double(width) + eps));
  columns.each([&](int i, int64_t column) {
    float v[N], w[N], b[N];
    row(v, i, column);
    load(w, weight, column);
    load(b, bias, column);
#pragma unroll
    for (int n = 0; n < N; n++) v[n] = (v[n] - m) * rstd * w[n] + b[n];
    store(y, r * width + column, v);
  });
  if (threadIdx.x % 32 == 0) {
    means[r] = m;
    rstds[r] = rstd;
  }
}

template <int N, int kPer>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(Any dy, Any x, Any weight, const float* __restrict__ means, const float* __restrict__ rstds,
                    Any residual, Any dx, int64_t rows, int64_t width) {
  const int64_t r = int64_t(blockIdx.x) * kRowsOfBlock + threadIdx.x / 32;
  if (r >= rows) return;
  const Columns<N, kPer> columns{width};
  Raw<N> raw_dy[kPer > 0 ? kPer : 1], raw_x[kPer > 0 ? kPer : 1];
  if (kPer > 0)
    columns.each([&](int i, int64_t column) {
      fetch(raw_dy[i], dy, r * width + column);
      fetch(raw_x[i], x, r * width + column);
    });
  const float mean = means[r], rstd = rstds[r];
  // g = dy · weight and xhat
  const auto row = [&](float(&g)[N], float(&xhat)[N], int i, int64_t column) {
    if (kPer == 0) {
      fetch(raw_dy[0], dy, r * width + column);
      fetch(raw_x[0], x, r * width + column);
    }
    float w[N];
    load(w, weight, column);
    unpack(g, raw_dy[i], dy.bf16);
    unpack(xhat, raw_x[i], x.bf16);
#pragma unroll
    for (int n = 0; n < N; n++) {
      g[n] *= w[n];
      xhat[n] = (xhat[n] - mean) * rstd;
    }
  };
  float sum = 0, dot = 0;
  columns.each([&](int i, int64_t column) {
    float g[N], xhat[N];
    row(g, xhat, i, column);
#pragma unroll
    for (int n = 0; n < N; n++) {
      sum += g[n];
      dot = fmaf(g[n], xhat[n], dot);
    }
  });
  sum = warp_sum(sum) / float(width);
  dot = warp_sum(dot) / float(width);
  columns.each([&](int i, int64_t column) {
    float g[N], xhat[N], rest[N] = {};
    row(g, xhat, i, column);
    if (residual) load(rest, residual, r * width + column);
#pragma unroll
    for (int n = 0; n < N; n++) g[n] = rstd * (g[n] - sum - xhat[n] * dot) + rest[n];
    store(dx, r * width + column, g);
  });
}

// Calls body with N and how often a lane goes over its row.
template <class Body>
void with_columns(int64_t width, std::initializer_list<const void*> addresses, const Body& body) {
  with_eight(width, addresses, [&](auto lanes) {
    constexpr int N = decltype(lanes)::value;
    if (N == 8 && width <= 512)
      body(lanes, std::integral_constant < int, N == 8 ? 2 : 0 > ());
    else if (N == 8 && width <= 1280)
      body(lanes, std::integral_constant < int, N == 8 ? 5 : 0 > ());
    else
      body(lanes, std::integral_constant<int, 0>());
  });
}

}  // namespace

// mean = Σ x / D   rstd = 1 / sqrt(Σ (x - mean)² / D + eps)   y = (x - mean)·rstd·weight + bias
// x, y [.., D], weight, bias f32 [D], mean, rstd f32 [rows]
void layer_norm(Context& c, const LayerNorm& q) {
  const View &x = q.x, &weight = q.weight, &bias = q.bias, &y = q.y;
  if (x.rows() == 0) return;
  with_columns(x.cols(), {x.data, weight.data, bias.data, y.data}, [&](auto lanes, auto per) {
    launch(c, forward_kernel<decltype(lanes)::value, decltype(per)::value>,
           (x.rows() + kRowsOfBlock - 1) / kRowsOfBlock, kThreads, any_of(x), any_of(weight), any_of(bias), any_of(y),
           q.mean.as<float>(), q.rstd.as<float>(), x.rows(), x.cols(), q.epsilon);
  });
}

// g = dy·weight   xhat = (x - mean)·rstd   dx = rstd·(g - Σ g / D - xhat·Σ (g·xhat) / D) + residual
// dweight += Σ_rows dy·xhat   dbias += Σ_rows dy
void layer_norm_backward(Context& c, const LayerNormBackward& q) {
  const View &dy = q.dy, &x = q.x, &weight = q.weight, &residual = q.residual, &dx = q.dx;
  const float *mean = q.mean.as<float>(), *rstd = q.rstd.as<float>();
  if (x.rows() == 0) return;
  with_columns(x.cols(), {dy.data, x.data, weight.data, residual.data, dx.data}, [&](auto lanes, auto per) {
    launch(c, backward_kernel<decltype(lanes)::value, decltype(per)::value>,
           (x.rows() + kRowsOfBlock - 1) / kRowsOfBlock, kThreads, any_of(dy), any_of(x), any_of(weight), mean, rstd,
           any_of(residual), any_of(dx), x.rows(), x.cols());
  });
  if (q.dweight || q.dbias)
    add_norm_columns(c, dy, x, mean, rstd, q.dweight ? q.dweight.as<float>() : nullptr,
                     q.dbias ? q.dbias.as<float>() : nullptr);
}

}  // namespace cuda
}  // namespace dw
