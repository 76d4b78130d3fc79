// The kernels of the distillation loss; distill_loss.cu says how they go together.
#pragma once
#include <cmath>

#include "math.cuh"
#include "ops/distill_loss.h"
#include "runtime/launch.cuh"

namespace dw {
namespace cuda {
namespace {

constexpr int kRowThreads = 512;

struct Loss {
  int64_t rows, vocabulary, stride;  // stride: from one row of logits to the next, in f32
  Distill kind;
  bool all_positions, grad;
  float tau, epsilon;
  double smoothing, ce_weight, kd_weight;
  const int32_t* labels;
  const int* labelled;  // how many rows have a label
  float *ce_rows, *kd_rows;
};

__device__ inline bool is_token(int32_t label, int64_t vocabulary) { return label >= 0 && label < vocabulary; }

// Each x[i] becomes the sum (or largest) over the block; `room` is [warps][8].
template <bool kSum, int K>
__device__ inline void block_reduce(float (&x)[K], float (*room)[8]) {
#pragma unroll
  for (int i = 0; i < K; i++)
    for (int lane = 16; lane > 0; lane /= 2) {
      const float other = __shfl_xor_sync(0xffffffffu, x[i], lane);
      x[i] = kSum ? x[i] + other : fmaxf(x[i], other);
    }
  __syncthreads();
  if (threadIdx.x % 32 == 0)
    for (int i = 0; i < K; i++) room[threadIdx.x / 32][i] = x[i];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < K; i++) {
    x[i] = room[0][i];
    for (int w = 1; w < kRowThreads / 32; w++) x[i] = kSum ? x[i] + room[w][i] : fmaxf(x[i], room[w][i]);
  }
}

// Labels that are tokens; others than -100 trap. One block.
__global__ void __launch_bounds__(kRowThreads)
    count_kernel(const int32_t* __restrict__ labels, int64_t rows, int64_t vocabulary, int* labelled, Trap trap) {
  __shared__ int counts[kRowThreads];
  int mine = 0;
  for (int64_t r = threadIdx.x; r < rows; r += kRowThreads) {
    if (is_token(labels[r], vocabulary))
      mine++;
    else if (labels[r] != kIgnored)
      trap(TrapKind::labels, r, labels[r], vocabulary);
  }
  counts[threadIdx.x] = mine;
  for (int half = kRowThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (int(threadIdx.x) < half) counts[threadIdx.x] += counts[threadIdx.x + half];
  }
  if (threadIdx.x == 0) *labelled = counts[0];
}

// Four logits at a time; those behind the vocabulary are `fill`.
__device__ inline int load_logits(float (&x)[4], const float* row, int64_t v, int64_t vocabulary, float fill) {
  const float4 f = *reinterpret_cast<const float4*>(row + v);
  x[0] = f.x, x[1] = f.y, x[2] = f.z, x[3] = f.w;
  const int count = int(min(vocabulary - v, int64_t(4)));
  for (int i = count; i < 4; i++) x[i] = fill;
  return count;
}
__device__ inline void store_gradient(float* row, int64_t v, const float (&x)[4]) {
  *reinterpret_cast<float4*>(row + v) = make_float4(x[0], x[1], x[2], x[3]);
}
__device__ inline void store_gradient(bfloat* row, int64_t v, const float (&x)[4]) {
  struct alignas(8) {
    bfloat v[4];
  } four;
  for (int i = 0; i < 4; i++) four.v[i] = __float2bfloat16_rn(x[i]);
  *reinterpret_cast<uint2*>(row + v) = *reinterpret_cast<const uint2*>(&four);
}

// log(ps/m) and log(pt/m) need 1/m. Below the smallest normal number a probability adds nothing.
constexpr float kLeast = 1.17549435e-38f;
__device__ inline float inverse_mean(float ps, float pt, float epsilon) {
  return 1 / fmaxf(0.5f * (ps + pt) + epsilon, kLeast);
}

// Row first + blockIdx.x. s, t: logits [rows, stride], t null without a teacher. d overlays s: a row of it takes no
// more room than the row of logits, and a thread is never behind what the others overwrite.
template <class E>
__global__ void __launch_bounds__(kRowThreads) row_kernel(Loss z, int64_t first, float* s_all, const float* t_all) {
  __shared__ float room[kRowThreads / 32][8];
  const int64_t r = first + blockIdx.x, step = kRowThreads * 4;
  float* s = s_all + int64_t(blockIdx.x) * z.stride;
  const float* t = t_all ? t_all + int64_t(blockIdx.x) * z.stride : nullptr;
  E* d = reinterpret_cast<E*>(s);
  const int64_t label = is_token(z.labels[r], z.vocabulary) ? z.labels[r] : -1, begin = threadIdx.x * 4;
  const bool distilled = t && (z.all_positions || label >= 0);
  if (label < 0 && !distilled) {
    if (threadIdx.x == 0) z.ce_rows[r] = z.kd_rows[r] = 0;
    const float none[4] = {};
    if (z.grad)
      for (int64_t v = begin; v < z.vocabulary; v += step) store_gradient(d, v, none);
    return;
  }
  const bool one = z.tau == 1;
  const float inverse = 1 / z.tau;
  float x[4], y[4];

  float top[2] = {-INFINITY, -INFINITY};
  float sums[5] = {};  // Σ e at temperature 1, at tau, of the teacher; Σ s; Σ e_t·(t - s)
  for (int64_t v = begin; v < z.vocabulary; v += step) {
    const int count = load_logits(x, s, v, z.vocabulary, -INFINITY);
    const float high = fmaxf(fmaxf(x[0], x[1]), fmaxf(x[2], x[3]));
    if (high > top[0]) {
      sums[0] *= expf(top[0] - high);
      sums[1] *= expf((top[0] - high) * inverse);
      top[0] = high;
    }
    for (int i = 0; i < count; i++) {
      sums[0] += expf(x[i] - top[0]);
      if (!one) sums[1] += expf((x[i] - top[0]) * inverse);
      sums[3] += x[i];
    }
    if (!distilled) continue;
    load_logits(y, t, v, z.vocabulary, -INFINITY);
    const float high_t = fmaxf(fmaxf(y[0], y[1]), fmaxf(y[2], y[3]));
    if (high_t > top[1]) {
      const float less = expf((top[1] - high_t) * inverse);
      sums[2] *= less;
      sums[4] *= less;
      top[1] = high_t;
    }
    for (int i = 0; i < count; i++) {
      const float e = expf((y[i] - top[1]) * inverse);
      sums[2] += e;
      sums[4] = fmaf(e, y[i] - x[i], sums[4]);
    }
  }
  const float mine_s = top[0], mine_t = top[1];
  block_reduce<false>(top, room);
  if (mine_s != top[0]) {
    sums[0] *= expf(mine_s - top[0]);
    sums[1] *= expf((mine_s - top[0]) * inverse);
  }
  if (distilled && mine_t != top[1]) {
    const float less = expf((mine_t - top[1]) * inverse);
    sums[2] *= less;
    sums[4] *= less;
  }
  const float s_label = label >= 0 ? s[label] : 0.0f;
  block_reduce<true>(sums, room);
  if (one) sums[1] = sums[0];
  const float over_one = 1 / sums[0], over_tau = 1 / sums[1], over_t = distilled ? 1 / sums[2] : 0.0f;
  auto student = [&](float logit) { return expf((logit - top[0]) * inverse) * over_tau; };
  auto teacher = [&](float logit) { return expf((logit - top[1]) * inverse) * over_t; };

  float js[2] = {};  // Σ pt·log(pt/m) + ps·log(ps/m), and Σ ps·a
  if (distilled && z.kind == Distill::js) {
    for (int64_t v = begin; v < z.vocabulary; v += step) {
      const int count = load_logits(x, s, v, z.vocabulary, 0);
      load_logits(y, t, v, z.vocabulary, 0);
      for (int i = 0; i < count; i++) {
        const float ps = student(x[i]), pt = teacher(y[i]), over = inverse_mean(ps, pt, z.epsilon);
        const float la = logf(fmaxf(ps * over, kLeast)), lb = logf(fmaxf(pt * over, kLeast));
        js[0] += pt * lb + ps * la;
        js[1] += 0.5f * ps * (la + z.epsilon * over);
      }
    }
    block_reduce<true>(js, room);
  }

  if (threadIdx.x == 0) {
    double ce = 0, kd = 0;
    if (label >= 0) {
      // lse - (1 - ε)·s_y - ε·mean, each less the row's largest logit.
      const double mean = double(sums[3]) / double(z.vocabulary) - double(top[0]);
      ce = log(double(sums[0])) - (1 - z.smoothing) * (double(s_label) - double(top[0])) -
           (z.smoothing > 0 ? z.smoothing * mean : 0);
    }
    if (distilled) {
      const double tau = z.tau;
      kd = z.kind == Distill::js ? double(js[0]) / 2
                                 : (double(sums[4]) / double(sums[2]) - (double(top[1]) - double(top[0]))) / tau +
                                       log(double(sums[1])) - log(double(sums[2]));
      kd *= tau * tau;
    }
    z.ce_rows[r] = float(ce);
    z.kd_rows[r] = float(kd);
  }
  if (!z.grad) return;

  const int labelled = *z.labelled;
  const float ce_share = label >= 0 ? float(z.ce_weight / double(labelled)) : 0.0f;
  const float less = float(double(ce_share) * (z.smoothing / double(z.vocabulary)));
  const float kd_share =
      distilled ? float(z.kd_weight / double(z.all_positions ? z.rows : int64_t(labelled)) * double(z.tau)) : 0.0f;
  const float of_label = float(double(ce_share) * (1 - z.smoothing));
  // Every thread takes part in every round: what is read in a round must be read by all before any of it is
  // overwritten.
  for (int64_t from = 0; from < z.vocabulary; from += step) {
    const int64_t v = from + begin;
    if (v < z.vocabulary) {
      load_logits(x, s, v, z.vocabulary, 0);
      if (distilled) load_logits(y, t, v, z.vocabulary, 0);
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float e = expf(x[i] - top[0]);
        float gradient = ce_share * e * over_one - less;
        if (distilled) {
          const float ps = one ? e * over_tau : student(x[i]), pt = teacher(y[i]);
          if (z.kind == Distill::js) {
            const float over = inverse_mean(ps, pt, z.epsilon);
            const float a = 0.5f * (logf(fmaxf(ps * over, kLeast)) + z.epsilon * over);
            gradient += kd_share * ps * (a - js[1]);
          } else {
            gradient += kd_share * (ps - pt);
          }
        }
        x[i] = v + i == label ? gradient - of_label : gradient;
      }
    }
    __syncthreads();
    if (v < z.vocabulary) store_gradient(d, v, x);
  }
}

// out[i] = Σ_part parts[part][i]
__global__ void join_kernel(const float* __restrict__ parts, int count, int64_t n, float* __restrict__ out) {
  DW_GRID_STRIDE(i, n) {
    float sum = parts[i];
    for (int p = 1; p < count; p++) sum += parts[p * n + i];
    out[i] = sum;
  }
}

// The four statistics, in double and always in the same order. One block.
__global__ void __launch_bounds__(kRowThreads) stats_kernel(Loss z, float* __restrict__ stats) {
  __shared__ double ce[kRowThreads], kd[kRowThreads];
  double a = 0, b = 0;
  for (int64_t r = threadIdx.x; r < z.rows; r += kRowThreads) {
    a += double(z.ce_rows[r]);
    b += double(z.kd_rows[r]);
  }
  ce[threadIdx.x] = a;
  kd[threadIdx.x] = b;
  for (int half = kRowThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (int(threadIdx.x) < half) {
      ce[threadIdx.x] += ce[threadIdx.x + half];
      kd[threadIdx.x] += kd[threadIdx.x + half];
    }
  }
  if (threadIdx.x != 0) return;
  const double labelled = *z.labelled, positions = z.all_positions ? double(z.rows) : labelled;
  a = labelled > 0 ? ce[0] / labelled : 0;
  b = positions > 0 ? kd[0] / positions : 0;
  stats[0] = float(a);
  stats[1] = float(b);
  stats[2] = float(z.ce_weight * a + z.kd_weight * b);
  stats[3] = float(labelled);
}

}  // namespace
}  // namespace cuda
}  // namespace dw
