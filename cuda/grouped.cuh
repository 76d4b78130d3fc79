// Products of rows with one of several weights, where only the device knows which rows go where: the hard gate's. Rows
// are listed by group, those of the shared FFN first (route_kernel), and a block finds its group and tile in that list:
// the grid is the most that there can be. Rows are gathered while they are loaded and put back while they are stored.
#pragma once
#include "ffn.cuh"
#include "linear_few.h"
#include "mma.cuh"

namespace dw {
namespace cuda {

constexpr int kGroups = 16;  // of one launch

struct Group {
  const void* weight;  // [n, k] in the products' type
  const float* bias;
  int begin, end;  // its rows are those of [begin, end) whose gate is 1; begin < 0: all whose gate is 0
};

struct Grouped {
  Group group[kGroups];
  int groups;
  const float* gate;  // [rows]: 0 or 1
  const int* order;   // [rows] row of each place of the list
  const int* ones;    // [rows + 1] rows before this one whose gate is 1; both null for a few rows
  int rows, n, k;
  const void* a;  // up: x by row; down: gelu(..) by place
  void* c;        // up: by place, in the products' type; down: y by row
  const void* residual;
  bool residual_bf16;
  bool pairs;  // two columns of the output at once: n is even, and bias, residual and output begin at 8 bytes

  // The most tiles of `height` rows that the groups can have.
  int64_t most_tiles(int height) const { return (int64_t(rows) + height - 1) / height + groups; }
};

struct Part {
  int group, first, count;  // places [first, first + count) of the list; group < 0: none
};
__device__ inline Part part_of(const Grouped& z, const int* ones, int tile, int height) {
  for (int i = 0; i < z.groups; i++) {
    const Group& g = z.group[i];
    const int all = ones[z.rows];
    const int first = g.begin < 0 ? 0 : z.rows - all + ones[g.begin];
    const int count = g.begin < 0 ? z.rows - all : ones[g.end] - ones[g.begin];
    const int tiles = (count + height - 1) / height;
    if (tile < tiles) return {i, first + tile * height, min(height, count - tile * height)};
    tile -= tiles;
  }
  return {-1, 0, 0};
}

// What a product's element becomes, and where it goes.
template <bool kUp, class Y>
__device__ inline void finish(const Grouped& z, const Group& g, int row, int place, int column, float v) {
  v += g.bias[column];
  if (kUp) {
    put(static_cast<Y*>(z.c), int64_t(place) * z.n + column, gelu(v));
    return;
  }
  const int64_t at = int64_t(row) * z.n + column;
  if (z.residual)
    v += z.residual_bf16 ? get(static_cast<const bfloat*>(z.residual), at)
                         : get(static_cast<const float*>(z.residual), at);
  put(static_cast<Y*>(z.c), at, v);
}

// Two columns of it at once; n and column are even.
template <bool kUp, class Y>
__device__ inline void finish_pair(const Grouped& z, const Group& g, int row, int place, int column, float v, float w) {
  const float2 bias = *reinterpret_cast<const float2*>(g.bias + column);
  v += bias.x, w += bias.y;
  if (kUp) {
    put_pair(static_cast<Y*>(z.c) + int64_t(place) * z.n + column, gelu(v), gelu(w));
    return;
  }
  const int64_t at = int64_t(row) * z.n + column;
  if (z.residual && z.residual_bf16) {
    const uint32_t pair = *reinterpret_cast<const uint32_t*>(static_cast<const bfloat*>(z.residual) + at);
    v += __uint_as_float(pair << 16), w += __uint_as_float(pair & 0xffff0000u);
  } else if (z.residual) {
    const float2 pair = *reinterpret_cast<const float2*>(static_cast<const float*>(z.residual) + at);
    v += pair.x, w += pair.y;
  }
  put_pair(static_cast<Y*>(z.c) + at, v, w);
}

// Tiles kM × kN on tensor cores, 8 warps, three stages of 32 columns in flight. k is a multiple of 8.
template <bool kUp, class Y, int kM, int kN>
__global__ void __launch_bounds__(256) grouped_kernel(Grouped z) {
  constexpr int kK = 32, kStages = 3, kThreadsHere = 256;
  constexpr int kHeight = kM / 2, kWidth = kN / 4;  // of a warp's patch, two rows of four warps
  constexpr int kTall = kHeight / 16, kWide = kWidth / 16;
  __shared__ __align__(16) bfloat rows_a[kStages][kM * kK], rows_b[kStages][kN * kK];
  const int n_tiles = (z.n + kN - 1) / kN, n0 = int(blockIdx.x) % n_tiles * kN;
  const Part part = part_of(z, z.ones, int(blockIdx.x) / n_tiles, kM);
  if (part.group < 0) return;
  const Group& group = z.group[part.group];
  const bfloat *a = static_cast<const bfloat*>(z.a), *b = static_cast<const bfloat*>(group.weight);
  const int tid = int(threadIdx.x), lane = tid % 32, warp = tid / 32;

  // A row is four chunks of 16 bytes; two rows share 128 bytes, and every second row turns its chunks.
  auto at = [](bfloat* tile, int row, int chunk) { return tile + row * kK + ((chunk ^ (row / 2 % 4)) * 8); };
  constexpr int kPiecesA = (kM * 4 + kThreadsHere - 1) / kThreadsHere;
  constexpr int kPiecesB = (kN * 4 + kThreadsHere - 1) / kThreadsHere;
  const int chunk = tid % 4;
  int64_t from_a[kPiecesA];
#pragma unroll
  for (int i = 0; i < kPiecesA; i++) {
    const int row = tid / 4 + i * (kThreadsHere / 4), place = part.first + (row < part.count ? row : 0);
    from_a[i] = int64_t(kUp ? z.order[place] : place) * z.k;
  }
  auto load = [&](int stage, int k0) {
    const int k = k0 + chunk * 8;
#pragma unroll
    for (int i = 0; i < kPiecesA; i++) {
      const int row = tid / 4 + i * (kThreadsHere / 4);
      const bool valid = row < part.count && k < z.k;
      if (row < kM) cp_async_16(at(rows_a[stage], row, chunk), valid ? a + from_a[i] + k : a, valid);
    }
#pragma unroll
    for (int i = 0; i < kPiecesB; i++) {
      const int row = tid / 4 + i * (kThreadsHere / 4);
      const bool valid = n0 + row < z.n && k < z.k;
      if (row < kN) cp_async_16(at(rows_b[stage], row, chunk), valid ? b + int64_t(n0 + row) * z.k + k : b, valid);
    }
  };

  const int steps = (z.k + kK - 1) / kK;
#pragma unroll
  for (int s = 0; s < kStages - 1; s++) {
    if (s < steps) load(s, s * kK);
    cp_async_commit();
  }
  const int m_warp = warp / 4 * kHeight, n_warp = warp % 4 * kWidth, matrix = lane / 8;
  float sum[kTall][2 * kWide][4] = {};
  for (int step = 0; step < steps; step++) {
    cp_async_wait<kStages - 2>();
    __syncthreads();
    const int ahead = step + kStages - 1;
    if (ahead < steps) load(ahead % kStages, ahead * kK);
    cp_async_commit();
    bfloat *ta = rows_a[step % kStages], *tb = rows_b[step % kStages];
#pragma unroll
    for (int k = 0; k < kK / 16; k++) {
      uint32_t fa[kTall][4], fb[kWide][4];
#pragma unroll
      for (int m = 0; m < kTall; m++)
        ldmatrix_x4(fa[m], at(ta, m_warp + m * 16 + matrix % 2 * 8 + lane % 8, k * 2 + matrix / 2));
#pragma unroll
      for (int n = 0; n < kWide; n++)
        ldmatrix_x4(fb[n], at(tb, n_warp + n * 16 + matrix / 2 * 8 + lane % 8, k * 2 + matrix % 2));
#pragma unroll
      for (int m = 0; m < kTall; m++)
#pragma unroll
        for (int n = 0; n < kWide; n++) {
          mma_bf16(sum[m][2 * n], fa[m], fb[n][0], fb[n][1]);
          mma_bf16(sum[m][2 * n + 1], fa[m], fb[n][2], fb[n][3]);
        }
    }
  }
#pragma unroll
  for (int m = 0; m < kTall; m++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int in_tile = m_warp + m * 16 + lane / 4 + half * 8;
      if (in_tile >= part.count) continue;
      const int place = part.first + in_tile, row = kUp ? 0 : z.order[place];
#pragma unroll
      for (int n = 0; n < 2 * kWide; n++) {
        const int column = n0 + n_warp + n * 8 + lane % 4 * 2;
        const float v = sum[m][n][2 * half], w = sum[m][n][2 * half + 1];
        if (z.pairs && column < z.n) {
          finish_pair<kUp, Y>(z, group, row, place, column, v, w);
          continue;
        }
        if (column < z.n) finish<kUp, Y>(z, group, row, place, column, v);
        if (column + 1 < z.n) finish<kUp, Y>(z, group, row, place, column + 1, w);
      }
    }
}

// The same by plain products, for any shape and type T: tiles of 64 × 64, 256 threads with 4 × 4 elements each.
template <bool kUp, class T, class Y>
__global__ void __launch_bounds__(kThreads) grouped_plain_kernel(Grouped z) {
  constexpr int kSide = 64, kK = 16;
  __shared__ float ta[kK][kSide + 1], tb[kK][kSide + 1];
  const int n_tiles = (z.n + kSide - 1) / kSide, n0 = int(blockIdx.x) % n_tiles * kSide;
  const Part part = part_of(z, z.ones, int(blockIdx.x) / n_tiles, kSide);
  if (part.group < 0) return;
  const Group& group = z.group[part.group];
  const T *a = static_cast<const T*>(z.a), *b = static_cast<const T*>(group.weight);
  const int tid = int(threadIdx.x), ty = tid / 16, tx = tid % 16;
  float sum[4][4] = {};
  for (int k0 = 0; k0 < z.k; k0 += kK) {
    __syncthreads();
    for (int i = tid; i < kSide * kK; i += kThreads) {
      const int row = i / kK, k = k0 + i % kK;
      float x = 0, w = 0;
      if (row < part.count && k < z.k) {
        const int place = part.first + row;
        x = get(a, int64_t(kUp ? z.order[place] : place) * z.k + k);
      }
      if (n0 + row < z.n && k < z.k) w = get(b, int64_t(n0 + row) * z.k + k);
      ta[i % kK][row] = x;
      tb[i % kK][row] = w;
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kK; k++)
#pragma unroll
      for (int m = 0; m < 4; m++)
#pragma unroll
        for (int n = 0; n < 4; n++) sum[m][n] = fmaf(ta[k][ty + 16 * m], tb[k][tx + 16 * n], sum[m][n]);
  }
#pragma unroll
  for (int m = 0; m < 4; m++) {
    if (ty + 16 * m >= part.count) continue;
    const int place = part.first + ty + 16 * m, row = z.order[place];
#pragma unroll
    for (int n = 0; n < 4; n++)
      if (n0 + tx + 16 * n < z.n) finish<kUp, Y>(z, group, row, place, n0 + tx + 16 * n, sum[m][n]);
  }
}

// 16 bytes of a row as floats.
__device__ inline void load_16(float (&x)[4], const float* p) { load(x, p, 0); }
__device__ inline void load_16(float (&x)[8], const bfloat* p) {
  const uint4 v = *reinterpret_cast<const uint4*>(p);
  const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    x[2 * i] = __uint_as_float(words[i] << 16);
    x[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
}
template <class T>
__device__ inline void load_16(float (&x)[1], const T* p) {
  x[0] = get(p, 0);
}

// The same for a few rows (decoding): a warp takes a column of the output, so that each weight is read once and only
// where a row asks for it. N elements of a weight's row at a time: 16 bytes, or 1.
template <bool kUp, int N, class T, class Y>
__global__ void __launch_bounds__(kThreads) grouped_few_kernel(Grouped z) {
  constexpr int kAtOnce = 4;
  __shared__ int order[kFewRows], ones[kFewRows + 1];
  if (threadIdx.x == 0) {
    int place = 0, before = 0;
    for (int r = 0; r < z.rows; r++) {
      ones[r] = before;
      before += z.gate[r] != 0;
    }
    ones[z.rows] = before;
    for (int wanted = 0; wanted < 2; wanted++)
      for (int r = 0; r < z.rows; r++)
        if ((z.gate[r] != 0) == (wanted != 0)) order[place++] = r;
  }
  __syncthreads();
  const int lane = int(threadIdx.x) % 32, column = int(blockIdx.x) * (kThreads / 32) + int(threadIdx.x) / 32;
  if (column >= z.n) return;
  const T* a = static_cast<const T*>(z.a);
  for (int tile = 0;; tile++) {
    const Part part = part_of(z, ones, tile, kAtOnce);
    if (part.group < 0) return;
    const Group& group = z.group[part.group];
    const T* w = static_cast<const T*>(group.weight) + int64_t(column) * z.k;
    const T* from[kAtOnce];
#pragma unroll
    for (int r = 0; r < kAtOnce; r++) {
      const int place = part.first + (r < part.count ? r : 0);
      from[r] = a + int64_t(kUp ? order[place] : place) * z.k;
    }
    float sum[kAtOnce] = {};
#pragma unroll 2
    for (int k = lane * N; k < z.k; k += 32 * N) {
      float x[N], y[N];
      load_16(y, w + k);
#pragma unroll
      for (int r = 0; r < kAtOnce; r++) {
        if (r >= part.count) break;
        load_16(x, from[r] + k);
#pragma unroll
        for (int n = 0; n < N; n++) sum[r] = fmaf(x[n], y[n], sum[r]);
      }
    }
#pragma unroll
    for (int r = 0; r < kAtOnce; r++) {
      for (int i = 16; i > 0; i /= 2) sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], i);
      const int place = part.first + r;
      if (lane == 0 && r < part.count) finish<kUp, Y>(z, group, order[place], place, column, sum[r]);
    }
  }
}

}  // namespace cuda
}  // namespace dw
