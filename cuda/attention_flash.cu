// Attention on tensor cores for heads of width 64 in bf16, after FlashAttention-2 (Dao 2023). Per block of queries,
// over tiles of 64 keys with a running maximum: S = Q·Kᵀ, P = 2^(c·(S − max)) with c = scale·log2 e, O = O·α + P·V. S
// and P live in registers only; P is the A operand of the second product as it comes out of the first. Keys and values
// are copied to shared memory while the tile before is worked on. A warp takes 32 rows, so that each fragment of K
// and V feeds two products: with 16, reading shared memory is the limit. Where that leaves too few blocks for the
// device it takes 16.
#include <cmath>

#include "attention.h"
#include "flash.cuh"
#include "runtime/launch.cuh"

namespace dw {
namespace cuda {

namespace {

constexpr float kLog2e = 1.4426950408889634f;

template <int kTiles, class O>
__global__ void __launch_bounds__(kFlashThreads, 2)
    flash_kernel(AttentionShape z, const bfloat* __restrict__ q, const bfloat* __restrict__ k,
                 const bfloat* __restrict__ v, O* __restrict__ o, float* __restrict__ lse) {
  constexpr int kQueries = 64 * kTiles;
  __shared__ __align__(16) bfloat keys[2][kFlashTile], values[2][kFlashTile];
  const int warp = int(threadIdx.x) / 32, g = int(threadIdx.x) % 32 / 4, t = int(threadIdx.x) % 4;
  // The last queries see the most keys when causal: they go first.
  const int blocks = (z.queries + kQueries - 1) / kQueries, from = (blocks - 1 - int(blockIdx.x) % blocks) * kQueries;
  const int64_t pair = blockIdx.x / blocks, stride = z.row;
  const int64_t item = pair / z.heads, column = pair % z.heads * kFlashWidth;
  const bfloat *head_k = k + item * z.keys * stride + column, *head_v = v + item * z.keys * stride + column;
  const int mine = from + warp * 16 * kTiles;
  const int seen_by_all = z.causal ? min(z.key_count, mine + z.offset + 1) : z.key_count;  // of this warp
  const auto seen_before = [&](int query) { return z.causal ? min(z.key_count, query + z.offset) : z.key_count; };
  const int visible = seen_before(min(from + kQueries, z.queries)), visible_here = seen_before(mine + 16 * kTiles);
  const float c = z.scale * kLog2e;

  load_tile(keys[0], head_k, stride, 0, z.key_count);
  load_tile(values[0], head_v, stride, 0, z.key_count);
  cp_async_commit();
  uint32_t a[kTiles][4][4];
  float out[kTiles][8][4], top[kTiles][2], sum[kTiles][2];
#pragma unroll
  for (int m = 0; m < kTiles; m++) {
    load_rows(a[m], q + item * z.queries * stride + column, stride, mine + 16 * m, z.queries);
    top[m][0] = top[m][1] = -INFINITY;
    sum[m][0] = sum[m][1] = 0;
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) out[m][n][i] = 0;
  }

  for (int j = 0, stage = 0; j < visible; j += kFlashRows, stage ^= 1) {
    cp_async_wait<0>();
    __syncthreads();  // the tile is there, and nobody works on the one before
    if (j + kFlashRows < visible) {
      load_tile(keys[stage ^ 1], head_k, stride, j + kFlashRows, z.key_count);
      load_tile(values[stage ^ 1], head_v, stride, j + kFlashRows, z.key_count);
      cp_async_commit();
    }
    if (j >= visible_here) continue;
    float s[kTiles][8][4] = {};
    times_rows<kTiles, 4>(s, a, keys[stage], 0);
    if (j + kFlashRows > seen_by_all) {
#pragma unroll
      for (int m = 0; m < kTiles; m++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const int row = mine + 16 * m + g + i / 2 * 8;
          const int n_seen = (z.causal ? min(z.key_count, row + z.offset + 1) : z.key_count) - j - 2 * t - i % 2;
#pragma unroll
          for (int n = 0; n < 8; n++)
            if (n * 8 >= n_seen) s[m][n][i] = -INFINITY;
        }
    }
#pragma unroll
    for (int m = 0; m < kTiles; m++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        float high = top[m][half];
#pragma unroll
        for (int n = 0; n < 8; n++) high = fmaxf(high, fmaxf(s[m][n][2 * half], s[m][n][2 * half + 1]));
        high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, 1));
        high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, 2));
        // Not S·c − max·c in one instruction: the largest P must be 1, as bf16 has it.
        const float alpha = exp2_fast((top[m][half] - high) * c);
        top[m][half] = high;
        float part = 0;
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
          for (int i = 0; i < 2; i++) {
            const float p = exp2_fast((s[m][n][2 * half + i] - high) * c);
            s[m][n][2 * half + i] = p;
            part += p;
            out[m][n][2 * half + i] *= alpha;
          }
        sum[m][half] = sum[m][half] * alpha + part;
      }
    times_columns<kTiles, 4>(out, s, values[stage], 0);
  }

#pragma unroll
  for (int m = 0; m < kTiles; m++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      sum[m][half] += __shfl_xor_sync(0xffffffffu, sum[m][half], 1);
      sum[m][half] += __shfl_xor_sync(0xffffffffu, sum[m][half], 2);
      const int row = mine + 16 * m + g + half * 8;
      if (t == 0 && row < z.queries) lse[pair * z.queries + row] = top[m][half] * z.scale + logf(sum[m][half]);
    }
    store_rows(o + item * z.queries * stride + column, stride, mine + 16 * m, z.queries, out[m], 1 / sum[m][0],
               1 / sum[m][1]);
  }
}

// dK, dV (kKeys) of a block of keys over tiles of queries, or dQ of a block of queries over tiles of keys. Either way a
// warp owns 16·kTiles rows, S and dP have them as their rows, 16·kPairs columns at a time, and nothing is summed by
// more than one block: S is computed twice, but no sum depends on an order and no partial result leaves a block.
//   kKeys: S = K·Qᵀ, dP = V·dOᵀ, dV += P·dO, dK += dS·Q        else: S = Q·Kᵀ, dP = dO·Vᵀ, dQ += dS·K
template <bool kKeys, int kTiles, int kPairs, class O>
__global__ void __launch_bounds__(kFlashThreads, 2)
    flash_backward_kernel(AttentionShape z, const bfloat* __restrict__ q, const bfloat* __restrict__ k,
                          const bfloat* __restrict__ v, const bfloat* __restrict__ dout, const float* __restrict__ lse,
                          const float* __restrict__ delta, O* __restrict__ da, O* __restrict__ db) {
  constexpr int kOwn = 64 * kTiles;
  __shared__ __align__(16) bfloat tile_a[2][kFlashTile], tile_b[2][kFlashTile];
  __shared__ float shifts[2][kFlashRows], deltas[2][kFlashRows];
  const int warp = int(threadIdx.x) / 32, g = int(threadIdx.x) % 32 / 4, t = int(threadIdx.x) % 4;
  const int own = kKeys ? z.keys : z.queries, other = kKeys ? z.queries : z.keys;
  const int blocks = (own + kOwn - 1) / kOwn, place = int(blockIdx.x) % blocks;
  // The first keys and the last queries have the most work when causal: they go first.
  const int from = (kKeys ? place : blocks - 1 - place) * kOwn, mine = from + warp * 16 * kTiles;
  const int64_t pair = blockIdx.x / blocks, stride = z.row;
  const int64_t item = pair / z.heads, column = pair % z.heads * kFlashWidth;
  const int64_t at_own = item * own * stride + column, at_other = item * other * stride + column;
  const bfloat *own_a = (kKeys ? k : q) + at_own, *own_b = (kKeys ? v : dout) + at_own;
  const bfloat *other_a = (kKeys ? q : k) + at_other, *other_b = (kKeys ? dout : v) + at_other;
  const float *lse_pair = lse + pair * z.queries, *delta_pair = delta + pair * z.queries;
  const float c = z.scale * kLog2e;
  const int begin = kKeys && z.causal ? from : 0;
  const int end = !kKeys && z.causal ? min(other, from + kOwn) : other;

  auto load = [&](int stage, int j) {
    load_tile(tile_a[stage], other_a, stride, j, other);
    load_tile(tile_b[stage], other_b, stride, j, other);
    cp_async_commit();
    // Queries behind the last one: P = 2^(0 − inf) = 0.
    if (kKeys && threadIdx.x < kFlashRows) {
      const int row = j + int(threadIdx.x);
      shifts[stage][threadIdx.x] = row < other ? lse_pair[row] * kLog2e : INFINITY;
      deltas[stage][threadIdx.x] = row < other ? delta_pair[row] : 0.0f;
    }
  };
  if (begin < end) load(0, begin);
  uint32_t a[kTiles][4][4], b[kTiles][4][4];
  float shift[kTiles][2] = {}, row_delta[kTiles][2] = {};
#pragma unroll
  for (int m = 0; m < kTiles; m++) {
    load_rows(a[m], own_a, stride, mine + 16 * m, own);
    load_rows(b[m], own_b, stride, mine + 16 * m, own);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = mine + 16 * m + g + half * 8;
      shift[m][half] = !kKeys && row < own ? lse_pair[row] * kLog2e : INFINITY;
      row_delta[m][half] = !kKeys && row < own ? delta_pair[row] : 0.0f;
    }
  }
  float grad_a[kTiles][8][4] = {}, grad_b[kTiles][8][4] = {};

  for (int j = begin, stage = 0; j < end; j += kFlashRows, stage ^= 1) {
    cp_async_wait<0>();
    __syncthreads();
    if (j + kFlashRows < end) load(stage ^ 1, j + kFlashRows);
    // Keys past the last need no mask where they are rows: such rows are not stored.
    const bool masked = (z.causal && j < from + kOwn && from < j + kFlashRows) || (!kKeys && j + kFlashRows > other);
// Not unrolled: its addresses would take the registers that the sums need.
#pragma unroll 1
    for (int part = 0; part < kFlashRows; part += 16 * kPairs) {
      float p[kTiles][2 * kPairs][4] = {}, d[kTiles][2 * kPairs][4] = {};
      times_rows<kTiles, kPairs>(p, a, tile_a[stage], part);
      times_rows<kTiles, kPairs>(d, b, tile_b[stage], part);
#pragma unroll
      for (int n = 0; n < 2 * kPairs; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const int in_tile = part + n * 8 + 2 * t + i % 2;
          const float column_shift = kKeys ? shifts[stage][in_tile] : 0,
                      column_delta = kKeys ? deltas[stage][in_tile] : 0;
#pragma unroll
          for (int m = 0; m < kTiles; m++) {
            float x = exp2_fast(fmaf(p[m][n][i], c, -(kKeys ? column_shift : shift[m][i / 2])));
            if (masked) {
              const int row = mine + 16 * m + g + i / 2 * 8;
              const int key = kKeys ? row : j + in_tile, query = kKeys ? j + in_tile : row;
              if (key >= z.keys || (z.causal && key > query)) x = 0;
            }
            p[m][n][i] = x;
            d[m][n][i] = x * (d[m][n][i] - (kKeys ? column_delta : row_delta[m][i / 2]));
          }
        }
      times_columns<kTiles, kPairs>(grad_a, d, tile_a[stage], part);
      if (kKeys) times_columns<kTiles, kPairs>(grad_b, p, tile_b[stage], part);
    }
  }
#pragma unroll
  for (int m = 0; m < kTiles; m++) {
    store_rows(da + at_own, stride, mine + 16 * m, own, grad_a[m], z.scale, z.scale);
    if (kKeys) store_rows(db + at_own, stride, mine + 16 * m, own, grad_b[m], 1, 1);
  }
}

bool aligned(const View& v) { return reinterpret_cast<uintptr_t>(v.data) % 16 == 0; }

}  // namespace

bool flash_fits(const AttentionShape& z, const View& q, const View& k, const View& v) {
  return q.dtype == DType::bf16 && z.width == kFlashWidth && aligned(q) && aligned(k) && aligned(v);
}

// Two tiles for a warp where the rows fill them and the blocks, two at a time, every processor.
static int choose(const Context& c, const AttentionShape& z, int rows, int tiles) {
  if (tiles != 0) return tiles;
  return rows > 64 && z.pairs() * ((rows + 127) / 128) >= 2 * c.processors ? 2 : 1;
}
static int64_t blocks(const AttentionShape& z, int rows, int tiles) {
  return z.pairs() * ((rows + 64 * tiles - 1) / (64 * tiles));
}

void flash_forward(Context& c, const AttentionShape& z, const View& q, const View& k, const View& v, const View& o,
                   float* lse, int tiles) {
  tiles = choose(c, z, z.queries, tiles);
  with_type(o.dtype, [&](auto* t) {
    using O = std::remove_pointer_t<decltype(t)>;
    launch(c, tiles == 2 ? flash_kernel<2, O> : flash_kernel<1, O>, blocks(z, z.queries, tiles), kFlashThreads, z,
           q.as<bfloat>(), k.as<bfloat>(), v.as<bfloat>(), o.as<O>(), lse);
  });
}

template <bool kKeys>
static void backward(Context& c, const AttentionShape& z, const View& q, const View& k, const View& v, const View& dout,
                     const float* lse, const float* delta, const View& da, const View& db, int tiles) {
  const int own = kKeys ? z.keys : z.queries;
  tiles = choose(c, z, own, tiles);
  with_type(da.dtype, [&](auto* t) {
    using O = std::remove_pointer_t<decltype(t)>;
    launch(c, tiles == 2 ? flash_backward_kernel<kKeys, 2, 1, O> : flash_backward_kernel<kKeys, 1, 2, O>,
           blocks(z, own, tiles), kFlashThreads, z, q.as<bfloat>(), k.as<bfloat>(), v.as<bfloat>(), dout.as<bfloat>(),
           lse, delta, da.as<O>(), db.as<O>());
  });
}

void flash_backward(Context& c, const AttentionShape& z, const View& q, const View& k, const View& v, const View& dout,
                    const float* lse, const float* delta, const View& dq, const View& dk, const View& dv, int tiles) {
  backward<true>(c, z, q, k, v, dout, lse, delta, dk, dv, tiles);
  if (z.queries > 0) backward<false>(c, z, q, k, v, dout, lse, delta, dq, View(), tiles);
}

}  // namespace cuda
}  // namespace dw
