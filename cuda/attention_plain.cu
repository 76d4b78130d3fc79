// Attention in full f32 for any type and heads up to 128 wide: the same tiling as attention_flash.cu, by plain products
// of tiles in shared memory. 256 threads as 16 × 16, each with a patch of every product.
#include <cmath>

#include "attention.h"
#include "math.cuh"
#include "runtime/launch.cuh"

namespace dw {
namespace cuda {

namespace {

constexpr int kSide = 16;

// Rows [first, first + kRows) of one head as f32, zeros from row `count` on and behind the head's width.
template <int kRows, int kWidth, class T>
__device__ inline void load_tile(float (*tile)[kWidth + 1], const T* head, int64_t stride, int width, int first,
                                 int count) {
  for (int i = int(threadIdx.x); i < kRows * kWidth; i += kThreads) {
    const int row = i / kWidth, column = i % kWidth, at = first + row;
    tile[row][column] = at < count && column < width ? get(head, at * stride + column) : 0.0f;
  }
}

// s[r][c] = a[ty + 16 r] · b[tx + 16 c]
template <int kRows, int kColumns, int kWidth>
__device__ inline void products(float (&s)[kRows][kColumns], const float (*a)[kWidth + 1], const float (*b)[kWidth + 1],
                                int width) {
  const int ty = int(threadIdx.x) / kSide, tx = int(threadIdx.x) % kSide;
  for (int i = 0; i < width; i++) {
    float x[kRows], y[kColumns];
#pragma unroll
    for (int r = 0; r < kRows; r++) x[r] = a[ty + kSide * r][i];
#pragma unroll
    for (int c = 0; c < kColumns; c++) y[c] = b[tx + kSide * c][i];
#pragma unroll
    for (int r = 0; r < kRows; r++)
#pragma unroll
      for (int c = 0; c < kColumns; c++) s[r][c] = fmaf(x[r], y[c], s[r][c]);
  }
}

// o[r][c] += Σ_j p[ty + 16 r][j] · v[j][tx + 16 c]
template <int kRows, int kColumns, int kKeys, int kWidth>
__device__ inline void add_products(float (&o)[kRows][kColumns], const float (*p)[kKeys + 1],
                                    const float (*v)[kWidth + 1]) {
  const int ty = int(threadIdx.x) / kSide, tx = int(threadIdx.x) % kSide;
  for (int j = 0; j < kKeys; j++) {
    float x[kRows], y[kColumns];
#pragma unroll
    for (int r = 0; r < kRows; r++) x[r] = p[ty + kSide * r][j];
#pragma unroll
    for (int c = 0; c < kColumns; c++) y[c] = v[j][tx + kSide * c];
#pragma unroll
    for (int r = 0; r < kRows; r++)
#pragma unroll
      for (int c = 0; c < kColumns; c++) o[r][c] = fmaf(x[r], y[c], o[r][c]);
  }
}

template <class T, class O, int kWidth>
__global__ void __launch_bounds__(kThreads)
    plain_kernel(AttentionShape z, const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v,
                 O* __restrict__ o, float* __restrict__ lse) {
  constexpr int kQueries = kWidth == 64 ? 64 : 32, kKeys = 32;
  constexpr int kRows = kQueries / kSide, kColumns = kKeys / kSide, kOut = kWidth / kSide;
  constexpr int kPerRow = kThreads / kQueries;  // threads that share a row of S
  __shared__ float queries[kQueries][kWidth + 1], tile[kKeys][kWidth + 1], scores[kQueries][kKeys + 1];
  __shared__ float factor[kQueries];
  const int ty = int(threadIdx.x) / kSide, tx = int(threadIdx.x) % kSide;
  const int blocks = (z.queries + kQueries - 1) / kQueries, from = (blocks - 1 - int(blockIdx.x) % blocks) * kQueries;
  const int64_t pair = blockIdx.x / blocks, stride = z.row;
  const int64_t item = pair / z.heads, column = pair % z.heads * z.width;
  const T *head_k = k + item * z.keys * stride + column, *head_v = v + item * z.keys * stride + column;
  const int visible = z.causal ? min(z.key_count, min(from + kQueries, z.queries) + z.offset) : z.key_count;
  const int my_row = int(threadIdx.x) / kPerRow, part = int(threadIdx.x) % kPerRow;
  const int seen = z.causal ? min(z.key_count, from + my_row + z.offset + 1) : z.key_count;

  load_tile<kQueries, kWidth>(queries, q + item * z.queries * stride + column, stride, z.width, from, z.queries);
  float out[kRows][kOut] = {}, top = -INFINITY, sum = 0;  // of my_row
  for (int j = 0; j < visible; j += kKeys) {
    load_tile<kKeys, kWidth>(tile, head_k, stride, z.width, j, z.key_count);
    __syncthreads();
    float s[kRows][kColumns] = {};
    products<kRows, kColumns, kWidth>(s, queries, tile, z.width);
#pragma unroll
    for (int r = 0; r < kRows; r++)
#pragma unroll
      for (int c = 0; c < kColumns; c++) scores[ty + kSide * r][tx + kSide * c] = s[r][c] * z.scale;
    __syncthreads();
    load_tile<kKeys, kWidth>(tile, head_v, stride, z.width, j, z.key_count);
    float high = top;
    for (int i = part; i < kKeys; i += kPerRow)
      if (j + i < seen) high = fmaxf(high, scores[my_row][i]);
    for (int i = 1; i < kPerRow; i *= 2) high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, i));
    const float alpha = expf(top - high);
    float added = 0;
    for (int i = part; i < kKeys; i += kPerRow) {
      const float p = j + i < seen ? expf(scores[my_row][i] - high) : 0.0f;
      scores[my_row][i] = p;
      added += p;
    }
    for (int i = 1; i < kPerRow; i *= 2) added += __shfl_xor_sync(0xffffffffu, added, i);
    top = high;
    sum = sum * alpha + added;
    if (part == 0) factor[my_row] = alpha;
    __syncthreads();
#pragma unroll
    for (int r = 0; r < kRows; r++)
#pragma unroll
      for (int c = 0; c < kOut; c++) out[r][c] *= factor[ty + kSide * r];
    add_products<kRows, kOut, kKeys, kWidth>(out, scores, tile);
    __syncthreads();
  }
  if (part == 0) {
    factor[my_row] = 1 / sum;
    if (from + my_row < z.queries) lse[pair * z.queries + from + my_row] = top + logf(sum);
  }
  __syncthreads();
#pragma unroll
  for (int r = 0; r < kRows; r++)
#pragma unroll
    for (int c = 0; c < kOut; c++) {
      const int row = from + ty + kSide * r, at = tx + kSide * c;
      if (row < z.queries && at < z.width)
        put(o, (item * z.queries + row) * stride + column + at, out[r][c] * factor[ty + kSide * r]);
    }
}

// As flash_backward_kernel: dK and dV of a block of keys, or dQ of a block of queries.
template <bool kKeys, class T, class O, int kWidth>
__global__ void __launch_bounds__(kThreads)
    plain_backward_kernel(AttentionShape z, const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v,
                          const T* __restrict__ dout, const float* __restrict__ lse, const float* __restrict__ delta,
                          O* __restrict__ da, O* __restrict__ db) {
  constexpr int kTile = kWidth == 64 ? 32 : 16, kPatch = kTile / kSide, kOut = kWidth / kSide;
  __shared__ float own_a[kTile][kWidth + 1], own_b[kTile][kWidth + 1], a[kTile][kWidth + 1], b[kTile][kWidth + 1];
  __shared__ float weights[kTile][kTile + 1], slopes[kTile][kTile + 1];
  const int ty = int(threadIdx.x) / kSide, tx = int(threadIdx.x) % kSide;
  const int own = kKeys ? z.keys : z.queries, other = kKeys ? z.queries : z.keys;
  const int blocks = (own + kTile - 1) / kTile, place = int(blockIdx.x) % blocks;
  const int from = (kKeys ? place : blocks - 1 - place) * kTile;
  const int64_t pair = blockIdx.x / blocks, stride = z.row;
  const int64_t item = pair / z.heads, column = pair % z.heads * z.width;
  const int64_t at_q = item * z.queries * stride + column, at_k = item * z.keys * stride + column;
  const float *lse_pair = lse + pair * z.queries, *delta_pair = delta + pair * z.queries;

  // Rows of keys or of queries; the second of a pair of tiles goes with the first.
  auto load_keys = [&](float(*x)[kWidth + 1], float(*y)[kWidth + 1], int first) {
    load_tile<kTile, kWidth>(x, k + at_k, stride, z.width, first, z.keys);
    load_tile<kTile, kWidth>(y, v + at_k, stride, z.width, first, z.keys);
  };
  auto load_queries = [&](float(*x)[kWidth + 1], float(*y)[kWidth + 1], int first) {
    load_tile<kTile, kWidth>(x, q + at_q, stride, z.width, first, z.queries);
    load_tile<kTile, kWidth>(y, dout + at_q, stride, z.width, first, z.queries);
  };
  if (kKeys)
    load_keys(own_a, own_b, from);
  else
    load_queries(own_a, own_b, from);
  float grad_a[kPatch][kOut] = {}, grad_b[kPatch][kOut] = {};
  const int begin = kKeys && z.causal ? from : 0;
  const int end = !kKeys && z.causal ? min(other, from + kTile) : other;
  for (int j = begin; j < end; j += kTile) {
    __syncthreads();
    if (kKeys)
      load_queries(a, b, j);
    else
      load_keys(a, b, j);
    __syncthreads();
    float s[kPatch][kPatch] = {}, d[kPatch][kPatch] = {};
    products<kPatch, kPatch, kWidth>(s, own_a, a, z.width);
    products<kPatch, kPatch, kWidth>(d, own_b, b, z.width);
#pragma unroll
    for (int r = 0; r < kPatch; r++)
#pragma unroll
      for (int c = 0; c < kPatch; c++) {
        const int row = ty + kSide * r, col = tx + kSide * c;
        const int key = kKeys ? from + row : j + col, query = kKeys ? j + col : from + row;
        const bool valid = key < z.keys && query < z.queries && !(z.causal && key > query);
        const float p = valid ? expf(s[r][c] * z.scale - lse_pair[query]) : 0.0f;
        weights[row][col] = p;
        slopes[row][col] = valid ? p * (d[r][c] - delta_pair[query]) : 0.0f;
      }
    __syncthreads();
    add_products<kPatch, kOut, kTile, kWidth>(grad_a, slopes, a);
    if (kKeys) add_products<kPatch, kOut, kTile, kWidth>(grad_b, weights, b);
  }
#pragma unroll
  for (int r = 0; r < kPatch; r++)
#pragma unroll
    for (int c = 0; c < kOut; c++) {
      const int row = from + ty + kSide * r, at = tx + kSide * c;
      if (row >= own || at >= z.width) continue;
      const int64_t to = (item * own + row) * stride + column + at;
      put(da, to, grad_a[r][c] * z.scale);
      if (kKeys) put(db, to, grad_b[r][c]);
    }
}

template <int kWidth>
void forward(Context& c, const AttentionShape& z, const View& q, const View& k, const View& v, const View& o,
             float* lse) {
  constexpr int kQueries = kWidth == 64 ? 64 : 32;
  const int64_t blocks = z.pairs() * ((z.queries + kQueries - 1) / kQueries);
  with_type(q.dtype, [&](auto* t) {
    with_type(o.dtype, [&](auto* u) {
      using T = std::remove_pointer_t<decltype(t)>;
      using O = std::remove_pointer_t<decltype(u)>;
      launch(c, plain_kernel<T, O, kWidth>, blocks, kThreads, z, q.as<T>(), k.as<T>(), v.as<T>(), o.as<O>(), lse);
    });
  });
}

template <int kWidth>
void backward(Context& c, const AttentionShape& z, const View& q, const View& k, const View& v, const View& dout,
              const float* lse, const float* delta, const View& dq, const View& dk, const View& dv) {
  constexpr int kTile = kWidth == 64 ? 32 : 16;
  const auto blocks = [&](int rows) { return z.pairs() * ((rows + kTile - 1) / kTile); };
  with_type(q.dtype, [&](auto* t) {
    with_type(dq.dtype, [&](auto* u) {
      using T = std::remove_pointer_t<decltype(t)>;
      using O = std::remove_pointer_t<decltype(u)>;
      launch(c, plain_backward_kernel<true, T, O, kWidth>, blocks(z.keys), kThreads, z, q.as<T>(), k.as<T>(), v.as<T>(),
             dout.as<T>(), lse, delta, dk.as<O>(), dv.as<O>());
      if (z.queries > 0)
        launch(c, plain_backward_kernel<false, T, O, kWidth>, blocks(z.queries), kThreads, z, q.as<T>(), k.as<T>(),
               v.as<T>(), dout.as<T>(), lse, delta, dq.as<O>(), static_cast<O*>(nullptr));
    });
  });
}

}  // namespace

void plain_forward(Context& c, const AttentionShape& z, const View& q, const View& k, const View& v, const View& o,
                   float* lse) {
  if (z.width <= 64)
    forward<64>(c, z, q, k, v, o, lse);
  else
    forward<128>(c, z, q, k, v, o, lse);
}

void plain_backward(Context& c, const AttentionShape& z, const View& q, const View& k, const View& v, const View& dout,
                    const float* lse, const float* delta, const View& dq, const View& dk, const View& dv) {
  if (z.width <= 64)
    backward<64>(c, z, q, k, v, dout, lse, delta, dq, dk, dv);
  else
    backward<128>(c, z, q, k, v, dout, lse, delta, dq, dk, dv);
}

}  // namespace cuda
}  // namespace dw
