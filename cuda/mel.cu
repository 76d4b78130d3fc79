// log_mel: samples f32 [n], filters f32 [mels, 201] → f32 [mels, frames].
//   X[k, t] = Σ_j w[j]·x[160·t + j - 200]·e^(-2πi·jk/400),  w[j] = ½ - ½·cos(2πj/400),  x mirrored at both ends;
//   y[m, t] = log10(max(1e-10, Σ_k filters[m, k]·|X[k, t]|²));  out = (max(y, max y - 8) + 4) / 4
// The transform is a sum: 0.2 GFLOP for 30 seconds are not worth a fast Fourier transform on a device that does them in
// microseconds. w is even about 200, so cosines meet x[j] + x[400 - j] only and sines x[j] - x[400 - j]: half the
// terms.
#include "audio.cuh"
#include "kernels.h"
#include "lanes.cuh"
#include "ops/mel.h"
#include "runtime/launch.cuh"

namespace dw {
namespace cuda {

namespace {

constexpr int kFrames = 8;  // of a block: what a thread, which has a frequency, reads once for all of them

__device__ inline float block_max(float x) {
  __shared__ float room[kThreads / 32];
  for (int i = 16; i > 0; i /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, i));
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = x;
  __syncthreads();
  for (int w = 0; w < kThreads / 32; w++) x = fmaxf(x, room[w]);
  return x;
}

// y, and its largest value in each block.
__global__ void __launch_bounds__(kThreads)
    spectrum_kernel(const float* __restrict__ samples, int64_t n, const float* __restrict__ filters, int64_t mels,
                    int64_t frames, float* __restrict__ y, float* __restrict__ tops, Trap trap) {
  __shared__ float cosine[kFft], sine[kFft];
  __shared__ __align__(16) float even[kHalf + 1][kFrames], odd[kHalf + 1][kFrames];
  __shared__ float power[kFrames][kBins];
  const int64_t first = int64_t(blockIdx.x) * kFrames, length = frames * kHop;
  for (int j = int(threadIdx.x); j < kFft; j += kThreads) sincospif(float(j) / kHalf, &sine[j], &cosine[j]);
  __syncthreads();
  const auto sample = [&](int64_t t, int j) {
    int64_t i = t * kHop + j - kHalf;
    if (i < 0) i = -i;
    if (i >= length) i = 2 * (length - 1) - i;
    return t < frames && i < n ? checked_sample(samples, i, trap) : 0.0f;
  };
  // Entry 0 has no weight, and entry 200 is its own mirror image.
  for (int i = int(threadIdx.x); i < kFrames * kHalf; i += kThreads) {
    const int f = i / kHalf, j = i % kHalf + 1;
    const float w = 0.5f - 0.5f * cosine[j], a = sample(first + f, j), b = j < kHalf ? sample(first + f, kFft - j) : 0;
    even[j][f] = w * (a + b);
    odd[j][f] = j < kHalf ? w * (a - b) : 0.0f;
  }
  __syncthreads();
  if (int(threadIdx.x) < kBins) {
    const int k = int(threadIdx.x);
    float re[kFrames] = {}, im[kFrames] = {};
    int at = 0;
    for (int j = 1; j <= kHalf; j++) {
      at += k;
      if (at >= kFft) at -= kFft;
      const float c = cosine[at], s = sine[at];
      float e[4], o[4];
#pragma unroll
      for (int half = 0; half < kFrames; half += 4) {
        load(e, &even[j][0], half);
        load(o, &odd[j][0], half);
#pragma unroll
        for (int f = 0; f < 4; f++) {
          re[half + f] = fmaf(e[f], c, re[half + f]);
          im[half + f] = fmaf(o[f], s, im[half + f]);
        }
      }
    }
#pragma unroll
    for (int f = 0; f < kFrames; f++) power[f][k] = re[f] * re[f] + im[f] * im[f];
  }
  __syncthreads();
  float top = -10;
  for (int64_t i = threadIdx.x; i < mels * kFrames; i += kThreads) {
    const int64_t m = i / kFrames, t = first + i % kFrames;
    if (t >= frames) continue;
    const float* of = power[i % kFrames];
    float sum = 0;
    for (int k = 0; k < kBins; k++) sum = fmaf(of[k], filters[m * kBins + k], sum);
    const float v = log10f(fmaxf(sum, 1e-10f));
    y[m * frames + t] = v;
    top = fmaxf(top, v);
  }
  top = block_max(top);
  if (threadIdx.x == 0) tops[blockIdx.x] = top;
}

__global__ void __launch_bounds__(kThreads)
    clamp_kernel(float* __restrict__ y, int64_t n, const float* __restrict__ tops, int64_t count) {
  float top = -10;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) top = fmaxf(top, tops[i]);
  top = block_max(top);
  DW_GRID_STRIDE(i, n) y[i] = (fmaxf(y[i], top - 8) + 4) * 0.25f;
}

// Slaney's scale: see core/audio.cc.
__device__ inline double mel_to_hz(double mel) {
  const double step = 200.0 / 3, knee = 1000 / step;
  return mel < knee ? mel * step : 1000 * exp(log(6.4) / 27 * (mel - knee));
}
__global__ void filters_kernel(float* __restrict__ out, int64_t mels) {
  const double top = 15 + log(8.0) / (log(6.4) / 27);  // 8000 Hz
  DW_GRID_STRIDE(i, mels * kBins) {
    const double m = double(i / kBins), share = top / double(mels + 1), hz = double(i % kBins) * (16000.0 / kFft);
    const double left = mel_to_hz(share * m), centre = mel_to_hz(share * (m + 1)), right = mel_to_hz(share * (m + 2));
    const double rise = (hz - left) / (centre - left), fall = (right - hz) / (right - centre);
    const double height = rise < fall ? rise : fall;
    out[i] = height > 0 ? float(double(float(height)) * (2 / (right - left))) : 0.0f;
  }
}

}  // namespace

void log_mel(Context& c, const LogMel& q) {
  const View &samples = q.samples, &filters = q.filters, &out = q.features;
  const int64_t mels = out.shape[0], frames = q.frames, blocks = (frames + kFrames - 1) / kFrames;
  if (frames == 0) return;
  Workspace::Frame frame(c.workspace);
  float* tops = frame.take<float>(blocks);
  launch(c, spectrum_kernel, blocks, kThreads, samples.as<const float>(), std::min(samples.size(), frames * kHop),
         filters.as<const float>(), mels, frames, out.as<float>(), tops, c.trap);
  launch(c, clamp_kernel, grid_for(out.size(), c.processors), kThreads, out.as<float>(), out.size(),
         static_cast<const float*>(tops), blocks);
}

// The triangular filters that core/audio.h defines      → f32 [mels, 201]
void mel_filters(Context& c, const MelFilters& q) {
  const View& out = q.filters;
  launch(c, filters_kernel, grid_for(out.size(), c.processors), kThreads, out.as<float>(), q.mels);
}

}  // namespace cuda
}  // namespace dw
