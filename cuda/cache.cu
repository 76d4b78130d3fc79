// The caches of a decoding: rows are added to them, and beams go on from one another's.
#include "core/decode.h"
#include "kernels.h"
#include "lanes.cuh"
#include "ops/decode.h"
#include "ops/rows.h"
#include "runtime/launch.cuh"

namespace dw {
namespace cuda {

namespace {

// cache[r / t, offset + r % t] = x[r], rows of `width`
template <int N>
__global__ void cache_kernel(Any x, Any cache, int64_t rows, int64_t t, int64_t width, int64_t positions,
                             const int32_t* __restrict__ position, int64_t most, Trap trap) {
  const int64_t per = width / N, offset = offset_at(position, most, trap);
  DW_GRID_STRIDE(i, rows * per) {
    const int64_t r = i / per, column = i % per * N;
    float v[N];
    load(v, x, r * width + column);
    store(cache, (r / t * positions + offset + r % t) * width + column, v);
  }
}

// The beam that beam i % beams goes on from; itself if there is no such beam.
__device__ inline int64_t parent_of(const int32_t* __restrict__ parents, int64_t i, int64_t beams, const Trap& trap) {
  const int64_t parent = parents[i];
  if (parent >= 0 && parent < beams) return parent;
  trap(TrapKind::parents, i, parent, beams);
  return i % beams;
}

// A thread reads one word of all beams of an item before it writes the first. Rows are `row` words, `used` of which
// move.
template <class Word>
__global__ void reorder_kernel(const int32_t* __restrict__ parents, Word* __restrict__ cache, int64_t items,
                               int64_t beams, int64_t row, int64_t used, Trap trap) {
  DW_GRID_STRIDE(i, items * used) {
    const int64_t first = i / used * beams;
    Word* at = cache + first * row + i % used;
    Word aside[kMostBeams];
    for (int64_t k = 0; k < beams; k++) {
      const int64_t parent = parent_of(parents, first + k, beams, trap);
      if (parent != k) aside[k] = at[parent * row];
    }
    for (int64_t k = 0; k < beams; k++)
      if (parent_of(parents, first + k, beams, trap) != k) at[k * row] = aside[k];
  }
}

}  // namespace

// cache[:, offset : offset + t] = x                  x [B, t, D], cache [B, P, D]; with position i32 [1] offset is there
void cache_write(Context& c, const CacheWrite& q) {
  const View &x = q.x, &cache = q.cache;
  const int64_t t = x.shape[1], width = x.shape[2], rows = x.shape[0] * t;
  if (rows * width == 0) return;
  with_eight(width, {x.data, cache.data}, [&](auto lanes) {
    constexpr int N = decltype(lanes)::value;
    launch(c, cache_kernel<N>, grid_for(rows * width / N, c.processors), kThreads, any_of(x), any_of(cache), rows, t,
           width, cache.shape[1], q.position.as<const int32_t>(), q.offset, c.trap);
  });
}

// cache[b·K + k, :count] = cache[b·K + parents[b, k], :count]      parents i32 [B, K], each cache [B·K, P, D]
void cache_reorder(Context& c, const CacheReorder& q) {
  const View& parents = q.parents;
  const int64_t items = parents.shape[0], beams = parents.shape[1];
  for (const View& cache : q.caches) {
    const int64_t width = cache.shape[2], used = q.positions * width;
    if (items * used == 0) continue;
    const auto reorder = [&](auto* words, int64_t elements) {
      launch(c, reorder_kernel<std::remove_pointer_t<decltype(words)>>, grid_for(items * used / elements, c.processors),
             kThreads, parents.as<const int32_t>(), words, items, beams, cache.shape[1] * width / elements,
             used / elements, c.trap);
    };
    const int64_t per = 16 / size_of(cache.dtype);
    if (width % per == 0 && reinterpret_cast<uintptr_t>(cache.data) % 16 == 0)
      reorder(cache.as<uint4>(), per);
    else
      with_type(cache.dtype, [&](auto* type) { reorder(static_cast<decltype(type)>(cache.data), 1); });
  }
}

}  // namespace cuda
}  // namespace dw
