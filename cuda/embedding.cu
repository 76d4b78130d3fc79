#include "kernels.h"
#include "lanes.cuh"
#include "ops/rows.h"
#include "runtime/launch.cuh"

namespace dw {
namespace cuda {

namespace {

constexpr int kIds = 128;  // threads of a block of the backward, and ids that it looks through at a time

template <int N>
__global__ void embedding_kernel(const int32_t* __restrict__ ids, Any table, Any positions, Any y, int64_t rows,
                                 int64_t t, int64_t width, int64_t vocabulary, const int32_t* __restrict__ position,
                                 int64_t most, Trap trap) {
  const int64_t per = width / N, offset = offset_at(position, most, trap);
  DW_GRID_STRIDE(k, rows * per) {
    const int64_t r = k / per, column = k % per * N;
    const int64_t id = ids[r];
    if (id < 0 || id >= vocabulary) {
      trap(TrapKind::ids, r, id, vocabulary);
      continue;  // an empty table has no row to read instead
    }
    Raw<N> ra, rb;
    fetch(ra, table, id * width + column);
    fetch(rb, positions, (offset + r % t) * width + column);
    float a[N], b[N];
    unpack(a, ra, table.bf16);
    unpack(b, rb, positions.bf16);
#pragma unroll
    for (int n = 0; n < N; n++) a[n] += b[n];
    store(y, r * width + column, a);
  }
}

// A block for each row r. The first row that has an id adds all rows with that id, in order: no atomics, the same bits
// every time.
__global__ void __launch_bounds__(kIds)
    table_kernel(Any dy, const int32_t* __restrict__ ids, float* __restrict__ dtable, int64_t rows, int64_t width,
                 int64_t vocabulary, int64_t padding, Trap trap) {
  __shared__ uint32_t found[kIds / 32];
  const int64_t r = blockIdx.x, id = ids[r];
  if (id == padding) return;
  if (id < 0 || id >= vocabulary) {
    if (threadIdx.x == 0) trap(TrapKind::ids, r, id, vocabulary);
    return;
  }
  for (int64_t from = 0; from < rows; from += kIds) {
    const int64_t other = from + threadIdx.x;
    const uint32_t same = __ballot_sync(0xffffffffu, other < rows && ids[other] == id);
    __syncthreads();  // the last turn's words have been read
    if (threadIdx.x % 32 == 0) found[threadIdx.x / 32] = same;
    __syncthreads();
    for (int w = 0; w < kIds / 32; w++)
      for (uint32_t left = found[w]; left != 0; left &= left - 1) {
        const int64_t row = from + w * 32 + __ffs(int(left)) - 1;
        if (row < r) return;  // that row's block does it
        for (int64_t column = threadIdx.x; column < width; column += kIds) {
          float v[1];
          load(v, dy, row * width + column);
          dtable[id * width + column] += v[0];
        }
      }
  }
}

// to[i] += Σ_b dy[b, i], i < n
template <int N>
__global__ void batch_kernel(Any dy, float* __restrict__ to, int64_t batch, int64_t n) {
  const Any sums{to, false};
  DW_GRID_STRIDE(k, n / N) {
    float sum[N];
    load(sum, sums, k * N);
    for (int64_t b = 0; b < batch; b++) {
      float v[N];
      load(v, dy, b * n + k * N);
#pragma unroll
      for (int e = 0; e < N; e++) sum[e] += v[e];
    }
    store(sums, k * N, sum);
  }
}

void add_batch(Context& c, const View& dy, float* to, int64_t n) {
  if (n == 0 || dy.shape[0] == 0) return;
  with_eight(n, {dy.data, to}, [&](auto lanes) {
    constexpr int N = decltype(lanes)::value;
    launch(c, batch_kernel<N>, grid_for(n / N, c.processors), kThreads, any_of(dy), to, dy.shape[0], n);
  });
}

}  // namespace

// y[b, t] = table[ids[b, t]] + positions[offset + t]     ids i32 [B, T], table [V, D], positions [P, D], y [B, T, D]
// With position i32 [1] the offset is read there.
void embedding(Context& c, const Embedding& q) {
  const View &ids = q.ids, &table = q.table, &positions = q.positions, &y = q.y;
  const int64_t rows = ids.size(), width = table.shape[1];
  if (rows == 0 || width == 0) return;
  with_eight(width, {table.data, positions.data, y.data}, [&](auto lanes) {
    constexpr int N = decltype(lanes)::value;
    launch(c, embedding_kernel<N>, grid_for(rows * width / N, c.processors), kThreads, ids.as<const int32_t>(),
           any_of(table), any_of(positions), any_of(y), rows, ids.shape[1], width, table.shape[0],
           q.position.as<const int32_t>(), q.offset, c.trap);
  });
}

// dtable[ids[b, t]] += dy[b, t] unless ids[b, t] = padding;   dpositions[offset + t] += dy[b, t]
void embedding_backward(Context& c, const EmbeddingBackward& q) {
  const View &dy = q.dy, &ids = q.ids, &dtable = q.dtable, &dpositions = q.dpositions;
  const int64_t rows = ids.size(), width = dy.shape[2];
  if (rows == 0) return;
  // A negative padding means none, also where an id has that value.
  const int64_t padding = q.padding < 0 ? int64_t(1) << 40 : q.padding;
  if (dtable)
    launch(c, table_kernel, rows, kIds, any_of(dy), ids.as<const int32_t>(), dtable.as<float>(), rows, width,
           dtable.shape[0], padding, c.trap);
  if (dpositions) add_batch(c, dy, dpositions.as<float>() + q.offset * width, dy.shape[1] * width);
}

// dpositions[t] += Σ_b dy[b, t]                           dy [B, T, D], dpositions f32 [T, D]
void add_backward_rows(Context& c, const AddBackwardRows& q) {
  add_batch(c, q.dy, q.dpositions.as<float>(), q.dpositions.size());
}

}  // namespace cuda
}  // namespace dw
