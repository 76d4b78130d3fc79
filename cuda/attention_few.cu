// Attention of a few queries against many keys, as in decoding: reading keys and values once is all the work. The keys
// are split over blocks, so that one utterance fills the device too; a block keeps the maximum, sum and output of its
// part, and the parts are put together in their order. A group of threads reads a key's row, 16 bytes each.
#include <cmath>

#include "attention.h"
#include "math.cuh"
#include "runtime/launch.cuh"

namespace dw {
namespace cuda {

namespace {

constexpr int kFewThreads = 128, kMostKeys = 512, kMaxWidth = 128;

// Columns of a row that one thread of a group takes: kPer that stand together in one load, or every 32nd.
template <class T, bool kVector>
struct Slice {
  static constexpr int kPer = kVector ? 16 / int(sizeof(T)) : kMaxWidth / 32;
  static constexpr int kLanes = kVector ? 64 / kPer : 32;
  static constexpr int kGroups = kFewThreads / kLanes;
  static __device__ int column(int lane, int i) { return kVector ? lane * kPer + i : lane + 32 * i; }
  static __device__ void load(float (&x)[kPer], const T* row, int lane, int width) {
    if (kVector) {
      __align__(16) T part[16 / sizeof(T)];
      *reinterpret_cast<uint4*>(part) = *reinterpret_cast<const uint4*>(row + lane * kPer);
#pragma unroll
      for (int i = 0; i < kPer; i++) x[i] = get(part, i);
    } else {
#pragma unroll
      for (int i = 0; i < kPer; i++) x[i] = lane + 32 * i < width ? get(row, lane + 32 * i) : 0.0f;
    }
  }
};

// All threads get the largest, or the sum, of their values; `room` holds a float for each warp.
template <bool kSum>
__device__ inline float block_reduce(float x, float* room) {
  for (int i = 16; i > 0; i /= 2) {
    const float other = __shfl_xor_sync(0xffffffffu, x, i);
    x = kSum ? x + other : fmaxf(x, other);
  }
  __syncthreads();
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = x;
  __syncthreads();
  x = room[0];
  for (int i = 1; i < kFewThreads / 32; i++) x = kSum ? x + room[i] : fmaxf(x, room[i]);
  return x;
}

// Block (query, split): keys [split·part, (split + 1)·part). With one split o and lse are final, else the block's
// output, unscaled, goes to parts [query][split][width], its maximum and sum to tops and sums [query][split].
template <class T, class O, bool kVector>
__global__ void __launch_bounds__(kFewThreads)
    few_kernel(AttentionShape z, int part, int splits, const T* __restrict__ q, const T* __restrict__ k,
               const T* __restrict__ v, O* __restrict__ o, float* __restrict__ lse, float* __restrict__ parts,
               float* __restrict__ tops, float* __restrict__ sums) {
  using S = Slice<T, kVector>;
  __shared__ float scores[kMostKeys], room[kFewThreads / 32], joined[S::kGroups][S::kLanes * S::kPer];
  const int lane = int(threadIdx.x) % S::kLanes, group = int(threadIdx.x) / S::kLanes;
  const int split = int(blockIdx.x) % splits;
  const int64_t unit = blockIdx.x / splits;  // (item, head, query)
  const int query = int(unit % z.queries);
  const int64_t pair = unit / z.queries, stride = z.row;
  const int64_t item = pair / z.heads, column = pair % z.heads * z.width;
  const int offset = z.position ? max(0, min(int(*z.position), z.offset)) : z.offset;
  const int seen = z.causal ? min(z.key_count, query + offset + 1) : z.key_count;
  const int first = split * part, count = max(0, min(seen - first, part));
  const int64_t at_q = (item * z.queries + query) * stride + column;
  const T* head_k = k + (item * z.keys + first) * stride + column;
  const T* head_v = v + (item * z.keys + first) * stride + column;

  float x[S::kPer], y[S::kPer];
  S::load(x, q + at_q, lane, z.width);
#pragma unroll 4
  for (int j = 0; j < count; j += S::kGroups) {
    const int key = j + group;
    float dot = 0;
    if (key < count) {
      S::load(y, head_k + key * stride, lane, z.width);
#pragma unroll
      for (int i = 0; i < S::kPer; i++) dot = fmaf(x[i], y[i], dot);
    }
    for (int i = S::kLanes / 2; i > 0; i /= 2) dot += __shfl_xor_sync(0xffffffffu, dot, i);
    if (lane == 0 && key < count) scores[key] = dot * z.scale;
  }
  __syncthreads();
  float top = -INFINITY, sum = 0;
  for (int j = int(threadIdx.x); j < count; j += kFewThreads) top = fmaxf(top, scores[j]);
  top = block_reduce<false>(top, room);
  for (int j = int(threadIdx.x); j < count; j += kFewThreads) {
    const float p = expf(scores[j] - top);
    scores[j] = p;
    sum += p;
  }
  sum = block_reduce<true>(sum, room);

  float out[S::kPer] = {};
#pragma unroll 4
  for (int key = group; key < count; key += S::kGroups) {
    S::load(y, head_v + key * stride, lane, z.width);
    const float p = scores[key];
#pragma unroll
    for (int i = 0; i < S::kPer; i++) out[i] = fmaf(p, y[i], out[i]);
  }
#pragma unroll
  for (int i = 0; i < S::kPer; i++) joined[group][S::column(lane, i)] = out[i];
  __syncthreads();
  for (int c = int(threadIdx.x); c < z.width; c += kFewThreads) {
    float all = 0;
    for (int i = 0; i < S::kGroups; i++) all += joined[i][c];
    if (splits == 1)
      put(o, at_q + c, all / sum);
    else
      parts[int64_t(blockIdx.x) * z.width + c] = all;
  }
  if (threadIdx.x != 0) return;
  if (splits == 1) {
    lse[unit] = top + logf(sum);
  } else {
    tops[blockIdx.x] = top;
    sums[blockIdx.x] = sum;
  }
}

// o and lse of one query from its splits. A split that saw no key has maximum −inf and counts 0.
template <class O>
__global__ void join_kernel(AttentionShape z, int splits, const float* __restrict__ parts,
                            const float* __restrict__ tops, const float* __restrict__ sums, O* __restrict__ o,
                            float* __restrict__ lse) {
  const int64_t unit = blockIdx.x, pair = unit / z.queries;
  const float *my_tops = tops + unit * splits, *my_sums = sums + unit * splits;
  float top = my_tops[0], sum = 0;
  for (int i = 1; i < splits; i++) top = fmaxf(top, my_tops[i]);
  for (int i = 0; i < splits; i++) sum += my_sums[i] * expf(my_tops[i] - top);
  if (threadIdx.x == 0) lse[unit] = top + logf(sum);
  const int64_t to = (pair / z.heads * z.queries + unit % z.queries) * z.row + pair % z.heads * z.width;
  for (int c = int(threadIdx.x); c < z.width; c += int(blockDim.x)) {
    float all = 0;
    for (int i = 0; i < splits; i++) all += parts[(unit * splits + i) * z.width + c] * expf(my_tops[i] - top);
    put(o, to + c, all / sum);
  }
}

}  // namespace

void few_queries(Context& c, const AttentionShape& z, const View& q, const View& k, const View& v, const View& o,
                 float* lse) {
  const int64_t units = z.pairs() * z.queries;
  const int span = std::min(z.keys, (z.key_count + kGraphSpan - 1) / kGraphSpan * kGraphSpan);
  // About four blocks for each processor, of at least 64 keys.
  int splits = int(std::min<int64_t>((4 * c.processors + units - 1) / units, (span + 63) / 64));
  splits = std::max(splits, (span + kMostKeys - 1) / kMostKeys);
  const int part = (span + splits - 1) / splits;
  Workspace::Frame frame(c.workspace);
  float *parts = nullptr, *tops = nullptr, *sums = nullptr;
  if (splits > 1) {
    parts = frame.take<float>(units * splits * z.width);
    tops = frame.take<float>(units * splits);
    sums = frame.take<float>(units * splits);
  }
  const auto aligned = [](const View& x) { return reinterpret_cast<uintptr_t>(x.data) % 16 == 0; };
  const bool vector = z.width == 64 && aligned(q) && aligned(k) && aligned(v);
  with_type(q.dtype, [&](auto* t) {
    with_type(o.dtype, [&](auto* u) {
      using T = std::remove_pointer_t<decltype(t)>;
      using O = std::remove_pointer_t<decltype(u)>;
      launch(c, vector ? few_kernel<T, O, true> : few_kernel<T, O, false>, units * splits, kFewThreads, z, part, splits,
             q.as<T>(), k.as<T>(), v.as<T>(), o.as<O>(), lse, parts, tops, sums);
      if (splits > 1) launch(c, join_kernel<O>, units, kFewThreads, z, splits, parts, tops, sums, o.as<O>(), lse);
    });
  });
}

}  // namespace cuda
}  // namespace dw
