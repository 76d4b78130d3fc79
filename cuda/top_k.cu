// top_k: z = logits with the suppressed ids at -inf; lse = log Σ e^z; the k best of z by (value descending, id
// ascending), values z - lse (-inf when z is). logits [R, V] → values f32 [R, k], ids i32 [R, k], lse f32 [R].
// A row is cut into slices, one a block, so that a few rows fill the device. A block keeps its slice in shared memory
// and picks its best k times; the lists of a row's slices are then merged by one warp. "The next best" is the best of
// those that come after the last one in the order: nothing needs to be crossed out.
#include "kernels.h"
#include "lanes.cuh"
#include "launch.cuh"

namespace dw {
namespace cuda {

namespace {

constexpr int64_t kMostSlice = 8192;  // 32 KB of shared memory

struct Best {
  float value;
  int32_t id;  // -1: none
};
__device__ inline bool before(const Best& a, const Best& b) {
  if (a.id < 0 || b.id < 0) return a.id >= 0;
  return a.value > b.value || (a.value == b.value && a.id < b.id);
}
__device__ inline Best warp_best(Best b) {
  for (int i = 16; i > 0; i /= 2) {
    const Best other{__shfl_xor_sync(0xffffffffu, b.value, i), __shfl_xor_sync(0xffffffffu, b.id, i)};
    if (before(other, b)) b = other;
  }
  return b;
}
__device__ inline float warp_max(float x) {
  for (int i = 16; i > 0; i /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, i));
  return x;
}

struct Slices {
  int64_t columns, slice, count;  // of a row
  int k;
  Best* best;   // [rows, count, k]
  float* top;   // [rows, count], the largest of a slice
  double* sum;  // [rows, count], Σ e^(z - top)
};

__global__ void __launch_bounds__(kThreads)
    slice_kernel(Slices s, Any logits, const int32_t* __restrict__ suppress, int64_t suppressed, Trap trap) {
  __shared__ float z[kMostSlice];
  __shared__ Best best_of[kThreads / 32];
  __shared__ double sum_of[kThreads / 32];
  const int64_t row = blockIdx.x / s.count, first = blockIdx.x % s.count * s.slice;
  const int count = int(s.columns - first < s.slice ? s.columns - first : s.slice);
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
#pragma unroll 4
  for (int i = int(threadIdx.x); i < count; i += kThreads) {
    float v[1];
    load(v, logits, row * s.columns + first + i);
    z[i] = v[0];
  }
  __syncthreads();
  for (int64_t i = threadIdx.x; i < suppressed; i += kThreads) {
    const int64_t id = suppress[i];
    if (id < 0 || id >= s.columns)
      trap(TrapKind::suppress, i, id, s.columns);
    else if (id >= first && id < first + count)
      z[id - first] = -INFINITY;
  }
  __syncthreads();
  Best mine{-INFINITY, -1};
  for (int i = int(threadIdx.x); i < count; i += kThreads) {
    if (!(z[i] < INFINITY)) {
      trap(TrapKind::logits, row, 0, 0);
      z[i] = -INFINITY;
    }
    const Best candidate{z[i], int32_t(first + i)};
    if (before(candidate, mine)) mine = candidate;
  }

  // The best of all, k times. The first one is the largest, which the sum needs.
  Best last{INFINITY, -1};
  for (int j = 0; j < s.k; j++) {
    const Best of_warp = warp_best(mine);
    if (lane == 0) best_of[warp] = of_warp;
    __syncthreads();
    Best best = best_of[0];
    for (int w = 1; w < kThreads / 32; w++)
      if (before(best_of[w], best)) best = best_of[w];
    __syncthreads();
    if (threadIdx.x == 0) s.best[(row * s.count + blockIdx.x % s.count) * s.k + j] = best;
    last = best;
    if (j == 0) {
      const float top = best.value;
      double sum = 0;
      if (top > -INFINITY)
        for (int i = int(threadIdx.x); i < count; i += kThreads) sum += double(expf(z[i] - top));
      sum = warp_sum(sum);
      if (lane == 0) sum_of[warp] = sum;
      __syncthreads();
      if (threadIdx.x == 0) {
        for (int w = 1; w < kThreads / 32; w++) sum += sum_of[w];
        s.sum[row * s.count + blockIdx.x % s.count] = sum;
        s.top[row * s.count + blockIdx.x % s.count] = top;
      }
    }
    // Only the thread that had it looks for its next one.
    if (best.id >= 0 && mine.id == best.id) {
      mine = Best{-INFINITY, -1};
      for (int i = int(threadIdx.x); i < count; i += kThreads) {
        const Best candidate{z[i], int32_t(first + i)};
        if (before(last, candidate) && before(candidate, mine)) mine = candidate;
      }
    }
  }
}

// A warp for each row.
__global__ void __launch_bounds__(32)
    merge_kernel(Slices s, float* __restrict__ values, int32_t* __restrict__ ids, float* __restrict__ logsumexp) {
  const int64_t row = blockIdx.x;
  const int lane = int(threadIdx.x);
  float top = -INFINITY;
  for (int64_t i = lane; i < s.count; i += 32) top = fmaxf(top, s.top[row * s.count + i]);
  top = warp_max(top);
  double sum = 0;
  if (top > -INFINITY)
    for (int64_t i = lane; i < s.count; i += 32)
      sum += s.sum[row * s.count + i] * exp(double(s.top[row * s.count + i]) - double(top));
  sum = warp_sum(sum);
  // Relative to the largest, so that nothing is lost where the logits are large.
  const double rest = log(sum);
  if (lane == 0) logsumexp[row] = top == -INFINITY ? top : float(double(top) + rest);
  const Best* lists = s.best + row * s.count * s.k;
  Best last{INFINITY, -1};
  for (int j = 0; j < s.k; j++) {
    Best mine{-INFINITY, -1};
    for (int64_t i = lane; i < s.count * s.k; i += 32) {
      const Best candidate = lists[i];
      if ((j == 0 || before(last, candidate)) && before(candidate, mine)) mine = candidate;
    }
    last = warp_best(mine);
    if (lane != 0) continue;
    values[row * s.k + j] = last.value == -INFINITY ? -INFINITY : float((double(last.value) - double(top)) - rest);
    ids[row * s.k + j] = last.id;
  }
}

}  // namespace

void top_k(Context& c, const Call& call) {
  const View &logits = call.in[0], &suppress = call.in[1];
  const int64_t rows = logits.shape[0];
  if (rows == 0) return;
  Slices s;
  s.columns = logits.shape[1];
  s.k = int(call.integer(0));
  // Two blocks for each processor, if slices do not become so small that merging them is the work.
  const int64_t wanted = std::max<int64_t>(1, 2 * int64_t(c.processors) / rows);
  s.slice = std::min(kMostSlice, std::max<int64_t>(1024, (s.columns + wanted - 1) / wanted));
  s.count = (s.columns + s.slice - 1) / s.slice;
  Workspace::Frame frame(c.workspace);
  s.best = frame.take<Best>(rows * s.count * s.k);
  s.top = frame.take<float>(rows * s.count);
  s.sum = frame.take<double>(rows * s.count);
  launch(c, slice_kernel, rows * s.count, kThreads, s, any_of(logits),
         suppress ? suppress.as<const int32_t>() : nullptr, suppress ? suppress.size() : int64_t(0), c.trap);
  launch(c, merge_kernel, rows, 32, s, call.out[0].as<float>(), call.out[1].as<int32_t>(), call.out[2].as<float>());
}

}  // namespace cuda
}  // namespace dw
