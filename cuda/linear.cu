// Linear layers. A few rows have a kernel of their own (linear_few.cu). Other products are cuBLASLt's; where its
// epilogues end (the erf GELU, a kept pre-activation, an f32 bias or residual on a bf16 result) the sums go to f32
// scratch memory and one more pass makes the result of them. That happens in blocks of rows whose sums stay in the L2
// cache, so that they cost no traffic to memory.
#include "cast.h"
#include "columns.h"
#include "epilogue.h"
#include "kernels.h"
#include "linear_few.h"
#include "ops/linear.h"
#include "runtime/launch.cuh"

namespace dw {
namespace cuda {

namespace {

constexpr int64_t kSumsInCache = 24 << 20;  // bytes: half of Hopper's L2, and enough rows to fill the device

// Rows of a block: as many as the cache holds or fewer, down to half, so that tiles of 128 × 256, which is what
// products of this size are made of, fill the device as wholly as they can.
int64_t rows_at_once(const Context& c, int64_t columns) {
  const int64_t most = std::max<int64_t>(1, kSumsInCache / 4 / columns / 128), wide = (columns + 255) / 256;
  int64_t best = most;
  double fullest = 0;
  for (int64_t rows = most; 2 * rows >= most; rows--) {
    const int64_t tiles = rows * wide, rounds = (tiles + c.processors - 1) / c.processors;
    const double full = double(tiles) / double(rounds * c.processors);
    if (full > fullest) fullest = full, best = rows;
  }
  return 128 * best;
}

template <int N>
__global__ void epilogue_kernel(Strips z, Epilogue e) {
  DW_STRIP(z, N);
  const Any sums{const_cast<float*>(e.sums), false}, bias{const_cast<float*>(e.bias), false};
  float b[N] = {};
  if (bias) load(b, bias, column);
  for (int64_t r = begin; r < end; r++) {
    const int64_t at = r * z.columns + column;
    Raw<N> rs, ro, rr;
    fetch(rs, sums, at);
    if (e.gelu_of) fetch(ro, e.gelu_of, at);
    if (e.residual) fetch(rr, e.residual, at);
    float s[N], v[N];
    unpack(s, rs, false);
#pragma unroll
    for (int n = 0; n < N; n++) s[n] += b[n];
    if (e.pre) store(e.pre, at, s);
    if (e.gelu) {
#pragma unroll
      for (int n = 0; n < N; n++) s[n] = gelu(s[n]);
    }
    if (e.gelu_of) {
      unpack(v, ro, e.gelu_of.bf16);
#pragma unroll
      for (int n = 0; n < N; n++) s[n] *= gelu_grad(v[n]);
    }
    if (e.residual) {
      unpack(v, rr, e.residual.bf16);
#pragma unroll
      for (int n = 0; n < N; n++) s[n] += v[n];
    }
    store(e.y, at, s);
  }
}

void finish(Context& c, Epilogue e, int64_t rows, int64_t columns) {
  with_eight(columns, {e.sums, e.bias, e.pre.data, e.gelu_of.data, e.residual.data, e.y.data}, [&](auto lanes) {
    constexpr int N = decltype(lanes)::value;
    const Strips s = strips_of(c, rows, columns, N);
    launch(c, epilogue_kernel<N>, s.blocks(), s.threads, s, e);
  });
}

template <int N>
__global__ void gelu_kernel(Any x, Any y, int64_t n) {
  DW_GRID_STRIDE(k, n / N) {
    float v[N];
    load(v, x, k * N);
#pragma unroll
    for (int e = 0; e < N; e++) v[e] = gelu(v[e]);
    store(y, k * N, v);
  }
}

}  // namespace

// Fused where cuBLASLt has it.
void product(Context& c, Gemm g, Epilogue e) {
  if (g.m == 0 || g.n == 0) return;
  const bool exact = g.c_type == DType::f32;
  const bool plain = !e.gelu && !e.gelu_of && !e.pre, adds = !e.residual || e.residual.bf16 == e.y.bf16;
  if (plain && adds && (exact || !e.bias)) {
    g.bias = e.bias;
    g.addend = e.residual.data;
    g.beta = e.residual ? 1.0f : 0.0f;
    return gemm(c, g);
  }
  if (exact) {
    e.sums = static_cast<const float*>(g.c);
    gemm(c, g);
    return finish(c, e, g.m, g.n);
  }
  const int64_t most = rows_at_once(c, g.n);
  Workspace::Frame frame(c.workspace);
  float* sums = frame.take<float>(std::min(most, g.m) * g.n);
  const int64_t total = g.m;
  g.c = sums;
  g.c_type = DType::f32;
  e.sums = sums;
  for (int64_t first = 0; first < total; first += most) {
    g.m = std::min(most, total - first);
    gemm(c, g);
    finish(c, e, g.m, g.n);
    g.a = static_cast<const char*>(g.a) + g.m * g.lda * size_of(g.a_type);
    e.skip(g.m * g.n);
  }
}

// y = act(x·Wᵀ + b) + residual                       x [.., K], W [N, K], b f32 [N] → y [.., N], pre [.., N]
void linear(Context& c, const Linear& q) {
  const View &x = q.x, &w = q.weight, &bias = q.bias, &residual = q.residual, &y = q.y;
  const DType compute = q.compute;
  const int64_t rows = x.rows(), n = y.cols();
  if (rows * n > 0 && few_rows_fit(rows, n, x.cols())) {
    const bool half = compute == DType::bf16;
    FewLinear z{any_of(x), any_of(w), bias ? bias.as<float>() : nullptr};
    if (q.save_pre) z.pre = any_of(q.pre);
    if (residual) z.residual = any_of(residual);
    z.y = any_of(y);
    z.gelu = q.gelu;
    z.round_x = half && !z.x.bf16, z.round_w = half && !z.w.bf16;
    z.rows = rows, z.n = n, z.k = x.cols();
    return linear_few(c, z);
  }
  const Gemm g = times_transposed(w, rows, rows_of(x), rows_of(y), compute);
  Epilogue e{};
  e.bias = bias ? bias.as<float>() : nullptr;
  e.gelu = q.gelu;
  if (q.save_pre) e.pre = any_of(q.pre);
  if (residual) e.residual = any_of(residual);
  e.y = any_of(y);
  product(c, g, e);
}

// dx = (dy·W) ⊙ gelu'(gelu_of) + residual            dy [.., N], W [N, K] → dx [.., K]
void linear_backward_input(Context& c, const LinearBackwardInput& q) {
  const Gemm g = times(q.weight, q.dy.rows(), rows_of(q.dy), rows_of(q.dx), q.compute);
  Epilogue e{};
  if (q.gelu_of) e.gelu_of = any_of(q.gelu_of);
  if (q.residual) e.residual = any_of(q.residual);
  e.y = any_of(q.dx);
  product(c, g, e);
}

// dW += dyᵀ·x, db += Σ_rows dy                        dy [.., N], x [.., K], dW f32 [N, K]; with x_gelu gelu(x) for x
void linear_backward_weight(Context& c, const LinearBackwardWeight& q) {
  const View &dy = q.dy, &x = q.x, &dweight = q.dweight, &dbias = q.dbias;
  const DType compute = q.compute;
  const int64_t rows = dy.rows();
  if (rows == 0) return;
  if (dbias) add_columns(c, dy, dbias.as<float>());
  if (!dweight || dweight.size() == 0) return;
  Workspace::Frame frame(c.workspace);
  Rows input = rows_of(x);
  if (q.x_gelu) {
    input = scratch(frame, compute, rows, x.cols());
    const Any from = any_of(x), to{input.data, compute == DType::bf16};
    with_eight(x.size(), {from.data, to.data}, [&](auto lanes) {
      constexpr int N = decltype(lanes)::value;
      launch(c, gelu_kernel<N>, grid_for(x.size() / N, c.processors), kThreads, from, to, x.size());
    });
  }
  gemm(c, weight_gradient(dweight, rows, rows_of(dy), input, compute));
}

}  // namespace cuda
}  // namespace dw
