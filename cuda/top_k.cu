// top_k: z = logits with the suppressed ids at -inf; lse = log Σ e^z; the k best of z by (value descending, id
// ascending), values z - lse (-inf when z is). logits [R, V] → values f32 [R, k], ids i32 [R, k], lse f32 [R].
// allowed i32 [R, 4]: of a row only the ids of [a0, a1) and [a2, a3) stay in z, and only the second range's where its
// Σ e^z is above every e^z of the first.
// A row is cut into slices, one a block, so that a few rows fill the device. A block keeps its slice in shared memory
// and picks its best k times; the lists of a row's slices are then merged by one warp. "The next best" is the best of
// those that come after the last one in the order: nothing needs to be crossed out. With `allowed` slices end at a2, so
// that each belongs to one of the two ranges, and the merge knows what each range sums up to.
#include "kernels.h"
#include "lanes.cuh"
#include "ops/decode.h"
#include "runtime/launch.cuh"

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
  const int32_t* allowed;  // [rows, 4], or null
  Best* best;              // [rows, count, k]
  float* top;              // [rows, count], the largest of a slice
  double* sum;             // [rows, count], Σ e^(z - top)
};

// What a row may choose: [at[0], at[1]) and [at[2], at[3]); all of it where nothing is said, or nothing sensible.
struct Ranges {
  int64_t at[4];
  int64_t wrong;  // the first bound that is out of order, or -1
};
__device__ inline Ranges ranges_of(const Slices& s, int64_t row) {
  const Ranges all{{0, s.columns, s.columns, s.columns}, -1};
  if (!s.allowed) return all;
  Ranges r = all;
  int64_t least = 0;
  for (int i = 0; i < 4; i++) {
    r.at[i] = s.allowed[4 * row + i];
    if (r.at[i] < least || r.at[i] > s.columns) return Ranges{{0, s.columns, s.columns, s.columns}, i};
    least = r.at[i];
  }
  return r;
}
// Slices before the second range.
__device__ inline int64_t slices_before(const Slices& s, const Ranges& r) { return (r.at[2] + s.slice - 1) / s.slice; }

__global__ void __launch_bounds__(kThreads)
    slice_kernel(Slices s, Any logits, const int32_t* __restrict__ suppress, int64_t suppressed, Trap trap) {
  __shared__ float z[kMostSlice];
  __shared__ Best best_of[kThreads / 32];
  __shared__ double sum_of[kThreads / 32];
  const int64_t row = blockIdx.x / s.count, index = blockIdx.x % s.count;
  const Ranges ranges = ranges_of(s, row);
  if (ranges.wrong >= 0 && threadIdx.x == 0)
    trap(TrapKind::allowed, 4 * row + ranges.wrong, s.allowed[4 * row + ranges.wrong], s.columns);
  // Columns [first, end) of the row, of which [from, to) are allowed. With two ranges the last slice may be empty.
  const int64_t split = slices_before(s, ranges);
  const bool second = index >= split;
  const int64_t first = second ? ranges.at[2] + (index - split) * s.slice : index * s.slice;
  const int64_t last_column = second ? s.columns : ranges.at[2];
  const int64_t end = first + s.slice < last_column ? first + s.slice : last_column;
  const int count = int(end > first ? end - first : 0);
  const auto within = [&](int64_t bound) { return int(max(int64_t(0), min(int64_t(count), bound - first))); };
  const int from = within(ranges.at[second ? 2 : 0]), to = within(ranges.at[second ? 3 : 1]);
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
#pragma unroll 4
  for (int i = from + int(threadIdx.x); i < to; i += kThreads) {
    float v[1];
    load(v, logits, row * s.columns + first + i);
    z[i] = v[0];
  }
  for (int i = int(threadIdx.x); i < from; i += kThreads) z[i] = -INFINITY;
  for (int i = to + int(threadIdx.x); i < count; i += kThreads) z[i] = -INFINITY;
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
    if (threadIdx.x == 0) s.best[(row * s.count + index) * s.k + j] = best;
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
        s.sum[row * s.count + index] = sum;
        s.top[row * s.count + index] = top;
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

struct Sum {
  float top;
  double sum;  // Σ e^(z - top)
};
// Of the slices [from, to) of a row, for every lane of a warp.
__device__ inline Sum sum_slices(const Slices& s, int64_t row, int64_t from, int64_t to, int lane) {
  float top = -INFINITY;
  for (int64_t i = from + lane; i < to; i += 32) top = fmaxf(top, s.top[row * s.count + i]);
  top = warp_max(top);
  double sum = 0;
  if (top > -INFINITY)
    for (int64_t i = from + lane; i < to; i += 32)
      sum += s.sum[row * s.count + i] * exp(double(s.top[row * s.count + i]) - double(top));
  return Sum{top, warp_sum(sum)};
}

// A warp for each row.
__global__ void __launch_bounds__(32)
    merge_kernel(Slices s, float* __restrict__ values, int32_t* __restrict__ ids, float* __restrict__ logsumexp) {
  const int64_t row = blockIdx.x;
  const int lane = int(threadIdx.x);
  const int64_t split = s.allowed ? slices_before(s, ranges_of(s, row)) : s.count;
  Sum all = sum_slices(s, row, 0, split, lane);
  int64_t from = 0;  // the first slice that is merged
  if (s.allowed) {
    const Sum second = sum_slices(s, row, split, s.count, lane);
    if (second.top > -INFINITY && double(second.top) + log(second.sum) > double(all.top)) {
      all = second;
      from = split;
    } else if (second.top > -INFINITY) {
      // Below every e^z of the first range, the second's are below its top.
      all.sum += second.sum * exp(double(second.top) - double(all.top));
    }
  }
  // Relative to the largest, so that nothing is lost where the logits are large.
  const double rest = log(all.sum);
  if (lane == 0) logsumexp[row] = all.top == -INFINITY ? all.top : float(double(all.top) + rest);
  const Best* lists = s.best + row * s.count * s.k;
  Best last{INFINITY, -1};
  int32_t unused = 0;
  for (int j = 0; j < s.k; j++) {
    Best mine{-INFINITY, -1};
    for (int64_t i = from * s.k + lane; i < s.count * s.k; i += 32) {
      const Best candidate = lists[i];
      if ((j == 0 || before(last, candidate)) && before(candidate, mine)) mine = candidate;
    }
    last = warp_best(mine);
    if (lane != 0) continue;
    int32_t id = last.id;
    if (s.allowed && last.value == -INFINITY) {
      // Behind the live logits come the lowest other ids, those of the first range too where only the second counts.
      for (int i = 0; i < j; i++)
        if (ids[row * s.k + i] == unused) {
          unused++;
          i = -1;
        }
      id = unused;
    }
    values[row * s.k + j] = last.value == -INFINITY ? -INFINITY : float((double(last.value) - double(all.top)) - rest);
    ids[row * s.k + j] = id;
  }
}

}  // namespace

void top_k(Context& c, const TopK& q) {
  const View &logits = q.logits, &suppress = q.suppress, &allowed = q.allowed;
  const int64_t rows = logits.shape[0];
  if (rows == 0) return;
  Slices s;
  s.columns = logits.shape[1];
  s.k = int(q.k);
  s.allowed = allowed ? allowed.as<const int32_t>() : nullptr;
  // Two blocks for each processor, if slices do not become so small that merging them is the work.
  const int64_t wanted = std::max<int64_t>(1, 2 * int64_t(c.processors) / rows);
  s.slice = std::min(kMostSlice, std::max<int64_t>(1024, (s.columns + wanted - 1) / wanted));
  // A slice that ends at the second range is one more.
  s.count = (s.columns + s.slice - 1) / s.slice + (allowed ? 1 : 0);
  Workspace::Frame frame(c.workspace);
  s.best = frame.take<Best>(rows * s.count * s.k);
  s.top = frame.take<float>(rows * s.count);
  s.sum = frame.take<double>(rows * s.count);
  launch(c, slice_kernel, rows * s.count, kThreads, s, any_of(logits),
         suppress ? suppress.as<const int32_t>() : nullptr, suppress ? suppress.size() : int64_t(0), c.trap);
  launch(c, merge_kernel, rows, 32, s, q.values.as<float>(), q.ids.as<int32_t>(), q.logsumexp.as<float>());
}

}  // namespace cuda
}  // namespace dw
