// Tiles of 64 columns of bf16 in shared memory, and a warp's products with them (mma.cuh has the fragments).
#pragma once
#include "mma.cuh"

namespace dw {
namespace cuda {

constexpr int kFlashWidth = 64;     // of a head: a row is eight chunks of 16 bytes
constexpr int kFlashRows = 64;      // of a tile
constexpr int kFlashThreads = 128;  // four warps
constexpr int kFlashTile = kFlashRows * kFlashWidth;

// A chunk's place is turned by its row, so that the eight rows that ldmatrix reads at once lie in different banks.
__device__ inline bfloat* tile_at(bfloat* tile, int row, int chunk) {
  return tile + row * kFlashWidth + ((chunk ^ (row & 7)) << 3);
}

// Rows [first, first + 64) of one head, zeros from row `count` on. All threads of the block.
__device__ inline void load_tile(bfloat* tile, const bfloat* head, int64_t stride, int first, int count) {
#pragma unroll
  for (int i = 0; i < kFlashRows * 8 / kFlashThreads; i++) {
    const int piece = int(threadIdx.x) + i * kFlashThreads, row = piece / 8, chunk = piece % 8, at = first + row;
    const bool valid = at < count;
    cp_async_16(tile_at(tile, row, chunk), head + (valid ? at : 0) * stride + chunk * 8, valid);
  }
}

// A[16, 64] of rows [first, first + 16) of one head, from global memory; zeros from row `count` on.
__device__ inline void load_rows(uint32_t (&a)[4][4], const bfloat* head, int64_t stride, int first, int count) {
  const int g = int(threadIdx.x) % 32 / 4, t = int(threadIdx.x) % 4;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int row = first + g + half * 8;
    const bool valid = row < count;
    const uint32_t* from = reinterpret_cast<const uint32_t*>(head + (valid ? row : 0) * stride) + t;
#pragma unroll
    for (int k = 0; k < 4; k++) {
      a[k][half] = valid ? from[k * 8] : 0u;
      a[k][half + 2] = valid ? from[k * 8 + 4] : 0u;
    }
  }
}

// c[16, 16·kPairs] += A[16, 64] · tileᵀ, rows [first, first + 16·kPairs) of the tile; kTiles stacked A.
template <int kTiles, int kPairs>
__device__ inline void times_rows(float (&c)[kTiles][2 * kPairs][4], const uint32_t (&a)[kTiles][4][4], bfloat* tile,
                                  int first) {
  const int lane = int(threadIdx.x) % 32, matrix = lane / 8;
#pragma unroll
  for (int k = 0; k < 4; k++)
#pragma unroll
    for (int n = 0; n < kPairs; n++) {
      uint32_t b[4];
      ldmatrix_x4(b, tile_at(tile, first + n * 16 + matrix / 2 * 8 + lane % 8, k * 2 + matrix % 2));
#pragma unroll
      for (int m = 0; m < kTiles; m++) {
        mma_bf16(c[m][2 * n], a[m][k], b[0], b[1]);
        mma_bf16(c[m][2 * n + 1], a[m][k], b[2], b[3]);
      }
    }
}

// c[16, 64] += P[16, 16·kPairs] · tile, rows [first, first + 16·kPairs) of the tile. P is what times_rows left,
// rounded.
template <int kTiles, int kPairs>
__device__ inline void times_columns(float (&c)[kTiles][8][4], const float (&p)[kTiles][2 * kPairs][4], bfloat* tile,
                                     int first) {
  const int lane = int(threadIdx.x) % 32, matrix = lane / 8;
#pragma unroll
  for (int k = 0; k < kPairs; k++) {
    uint32_t a[kTiles][4];
#pragma unroll
    for (int m = 0; m < kTiles; m++) {
      a[m][0] = pack_bf16(p[m][2 * k][0], p[m][2 * k][1]);
      a[m][1] = pack_bf16(p[m][2 * k][2], p[m][2 * k][3]);
      a[m][2] = pack_bf16(p[m][2 * k + 1][0], p[m][2 * k + 1][1]);
      a[m][3] = pack_bf16(p[m][2 * k + 1][2], p[m][2 * k + 1][3]);
    }
#pragma unroll
    for (int n = 0; n < 4; n++) {
      uint32_t b[4];
      ldmatrix_x4_trans(b, tile_at(tile, first + k * 16 + matrix % 2 * 8 + lane % 8, n * 2 + matrix / 2));
#pragma unroll
      for (int m = 0; m < kTiles; m++) {
        mma_bf16(c[m][2 * n], a[m], b[0], b[1]);
        mma_bf16(c[m][2 * n + 1], a[m], b[2], b[3]);
      }
    }
  }
}

// Rows [first, first + 16) of one head become c·(low for rows g, high for rows g + 8).
template <class O>
__device__ inline void store_rows(O* head, int64_t stride, int first, int count, const float (&c)[8][4], float low,
                                  float high) {
  const int g = int(threadIdx.x) % 32 / 4, t = int(threadIdx.x) % 4;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int row = first + g + half * 8;
    if (row >= count) continue;
    const float scale = half ? high : low;
#pragma unroll
    for (int n = 0; n < 8; n++)
      put_pair(head + row * stride + n * 8 + 2 * t, c[n][2 * half] * scale, c[n][2 * half + 1] * scale);
  }
}

}  // namespace cuda
}  // namespace dw
