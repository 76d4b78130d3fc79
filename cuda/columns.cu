// Column sums in two steps: a thread walks down its columns of a chunk of rows; then the chunks' sums are added up.
#include "columns.h"
#include "lanes.cuh"
#include "runtime/launch.cuh"

namespace dw {
namespace cuda {

namespace {

// sums[chunk, j] = Σ_r dy[r, j], and with x, products[chunk, j] = Σ_r dy[r, j]·(x[r, j] - mean[r])·rstd[r]
template <int N>
__global__ void chunk_kernel(Strips z, Any dy, Any x, const float* __restrict__ mean, const float* __restrict__ rstd,
                             float* __restrict__ sums, float* __restrict__ products) {
  DW_STRIP(z, N);
  float sum[N] = {}, product[N] = {};
#pragma unroll 2
  for (int64_t r = begin; r < end; r++) {
    const int64_t at = r * z.columns + column;
    Raw<N> rd, rx;
    fetch(rd, dy, at);
    if (x) fetch(rx, x, at);
    float d[N], v[N];
    unpack(d, rd, dy.bf16);
#pragma unroll
    for (int n = 0; n < N; n++) sum[n] += d[n];
    if (!x) continue;
    const float m = mean[r], s = rstd[r];
    unpack(v, rx, x.bf16);
#pragma unroll
    for (int n = 0; n < N; n++) product[n] = fmaf(d[n], (v[n] - m) * s, product[n]);
  }
  store(Any{sums, false}, chunk * z.columns + column, sum);
  if (x) store(Any{products, false}, chunk * z.columns + column, product);
}

// A warp for 32 columns would leave the device idle: the threads of a block share 32 columns' chunks. Thread = (column,
// part of the chunks); the parts are added in order.
constexpr int kParts = 8;
__global__ void __launch_bounds__(32 * kParts)
    add_kernel(const float* __restrict__ sums, int64_t chunks, int64_t columns, float* __restrict__ to) {
  __shared__ float room[kParts][32];
  const int part = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  const int64_t column = int64_t(blockIdx.x) * 32 + lane;
  float sum = 0;
  if (column < columns)
    for (int64_t k = part; k < chunks; k += kParts) sum += sums[k * columns + column];
  room[part][lane] = sum;
  __syncthreads();
  if (part != 0 || column >= columns) return;
  for (int p = 1; p < kParts; p++) sum += room[p][lane];
  to[column] += sum;
}

void add(Context& c, const View& dy, const Any& x, const float* mean, const float* rstd, float* dweight, float* dbias) {
  const int64_t rows = dy.rows(), columns = dy.cols();
  if (rows == 0 || columns == 0) return;
  with_eight(columns, {dy.data, x.data}, [&](auto lanes) {
    constexpr int N = decltype(lanes)::value;
    const Strips s = strips_of(c, rows, columns, N);
    Workspace::Frame frame(c.workspace);
    float* sums = frame.take<float>(s.chunks * columns);
    float* products = x ? frame.take<float>(s.chunks * columns) : nullptr;
    launch(c, chunk_kernel<N>, s.blocks(), s.threads, s, any_of(dy), x, mean, rstd, sums, products);
    const int64_t blocks = (columns + 31) / 32;
    if (dbias) launch(c, add_kernel, blocks, 32 * kParts, static_cast<const float*>(sums), s.chunks, columns, dbias);
    if (dweight)
      launch(c, add_kernel, blocks, 32 * kParts, static_cast<const float*>(products), s.chunks, columns, dweight);
  });
}

}  // namespace

void add_columns(Context& c, const View& x, float* to) { add(c, x, Any{}, nullptr, nullptr, nullptr, to); }

void add_norm_columns(Context& c, const View& dy, const View& x, const float* mean, const float* rstd, float* dweight,
                      float* dbias) {
  add(c, dy, dweight ? any_of(x) : Any{}, mean, rstd, dweight, dbias);
}

}  // namespace cuda
}  // namespace dw
