// resample: samples f32 [n] → f32 [ceil(n·to / from)]
//   y[j] = Σ_i x[i]·h((i - c)·s) / Σ_i h((i - c)·s),  c = j·from/to,  s = min(1, to/from),  h of core/audio.h
// The position of an output between two samples takes L values, to/from = L/M in lowest terms: each has a row of
// coefficients that sum to 1, made in double. When that table would be large, 1024 positions a sample of the lower rate
// are tabulated and neighbouring rows interpolated linearly (error below -110 dB). A warp has an output.
#include <cmath>

#include "audio.cuh"
#include "cast.h"
#include "kernels.h"
#include "lanes.cuh"
#include "ops/mel.h"
#include "runtime/launch.cuh"

namespace dw {
namespace cuda {

namespace {

constexpr int64_t kLargestTable = 1 << 18;
constexpr int kRowThreads = 128;

struct Plan {
  int64_t n, m;       // samples, outputs
  int64_t from, to;   // in lowest terms
  int64_t taps;       // of a row
  int64_t positions;  // between two samples
  bool exact;
  double scale;
};

// The modified Bessel function of order 0 by its power series.
__device__ inline double bessel_i0(double x) {
  double term = 1, sum = 1;
  for (int k = 1; term > sum * 1e-17; k++) {
    const double f = x / (2.0 * k);
    term *= f * f;
    sum += term;
  }
  return sum;
}

// A block makes a row: the taps around a point that lies row / positions beyond sample taps / 2 - 1.
__global__ void __launch_bounds__(kRowThreads) row_kernel(Plan p, float* __restrict__ table) {
  __shared__ double room[kRowThreads / 32];
  const double part = double(blockIdx.x) / double(p.positions), peak = bessel_i0(kSincBeta);
  const auto value = [&](int64_t k) {
    const double t = (double(k - p.taps / 2 + 1) - part) * p.scale, u = t / kSincHalf;
    if (fabs(u) >= 1) return 0.0;
    const double a = kPi * kSincCutoff * t, sinc = fabs(a) < 1e-9 ? 1.0 : sin(a) / a;
    return kSincCutoff * sinc * bessel_i0(kSincBeta * sqrt(1 - u * u)) / peak;
  };
  double sum = 0;
  float* row = table + int64_t(blockIdx.x) * p.taps;
  for (int64_t k = threadIdx.x; k < p.taps; k += kRowThreads) sum += value(k);
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = sum;
  __syncthreads();
  sum = 0;
  for (int w = 0; w < kRowThreads / 32; w++) sum += room[w];
  for (int64_t k = threadIdx.x; k < p.taps; k += kRowThreads) row[k] = float(value(k) / sum);
}

__global__ void check_kernel(const float* __restrict__ x, int64_t n, Trap trap) {
  DW_GRID_STRIDE(i, n) checked_sample(x, i, trap);
}

__global__ void __launch_bounds__(kThreads)
    resample_kernel(Plan p, const float* __restrict__ table, const float* __restrict__ x, float* __restrict__ y) {
  const int64_t j = int64_t(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (j >= p.m) return;
  const int64_t begin = j * p.from / p.to - (p.taps / 2 - 1), rest = j * p.from % p.to;
  const double part = double(rest) / double(p.to) * double(p.positions);
  const int64_t r = p.exact ? rest : int64_t(part);
  const float f = p.exact ? 0.0f : float(part - double(r));
  const float *row = table + r * p.taps, *next = p.exact ? row : row + p.taps;
  float a = 0, b = 0;
  for (int64_t k = threadIdx.x % 32; k < p.taps; k += 32) {
    const int64_t i = begin + k;
    const float v = i >= 0 && i < p.n ? x[i] : 0.0f;
    a = fmaf(row[k], v, a);
    if (!p.exact) b = fmaf(next[k], v, b);
  }
  const float sum = warp_sum(a * (1 - f) + b * f);
  if (threadIdx.x % 32 == 0) y[j] = sum;
}

}  // namespace

void resample(Context& c, const Resample& q) {
  const View &x = q.samples, &y = q.resampled;
  const int64_t from = q.from_rate, to = q.to_rate;
  if (y.size() == 0) return;
  launch(c, check_kernel, grid_for(x.size(), c.processors), kThreads, x.as<const float>(), x.size(), c.trap);
  if (from == to) return convert(c, x.data, x.dtype, y.data, y.dtype, x.size());
  int64_t divisor = from, rest = to;
  while (rest != 0) {
    const int64_t r = divisor % rest;
    divisor = rest;
    rest = r;
  }
  Plan p;
  p.n = x.size(), p.m = y.size();
  p.from = from / divisor, p.to = to / divisor;
  p.scale = to < from ? double(to) / double(from) : 1.0;
  p.taps = 2 * int64_t(std::ceil(kSincHalf / p.scale));
  p.exact = p.to * p.taps <= kLargestTable;
  p.positions = p.exact ? p.to : int64_t(std::ceil(1024 * p.scale));
  const int64_t rows = p.exact ? p.to : p.positions + 1;
  Workspace::Frame frame(c.workspace);
  float* table = frame.take<float>(rows * p.taps);
  launch(c, row_kernel, rows, kRowThreads, p, table);
  launch(c, resample_kernel, (p.m + kThreads / 32 - 1) / (kThreads / 32), kThreads, p, static_cast<const float*>(table),
         x.as<const float>(), y.as<float>());
}

}  // namespace cuda
}  // namespace dw
