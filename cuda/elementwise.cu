#include "dropout.cuh"
#include "kernels.h"
#include "lanes.cuh"
#include "ops/activation.h"
#include "ops/rows.h"
#include "runtime/launch.cuh"

namespace dw {
namespace cuda {

namespace {

// `period` is a multiple of N, or n.
template <int N>
__global__ void add_kernel(Any a, Any b, Any y, float alpha, float beta, int64_t n, int64_t period) {
  DW_GRID_STRIDE(k, n / N) {
    const int64_t i = k * N;
    Raw<N> ra, rb;
    fetch(ra, a, i);
    fetch(rb, b, period == n ? i : i % period);
    float u[N], v[N];
    unpack(u, ra, a.bf16);
    unpack(v, rb, b.bf16);
#pragma unroll
    for (int e = 0; e < N; e++) u[e] = alpha * u[e] + beta * v[e];
    store(y, i, u);
  }
}

template <int N>
__global__ void gelu_backward_kernel(Any dy, Any pre, Any out, int64_t n) {
  DW_GRID_STRIDE(k, n / N) {
    const int64_t i = k * N;
    Raw<N> rd, rp;
    fetch(rd, dy, i);
    fetch(rp, pre, i);
    float d[N], x[N];
    unpack(d, rd, dy.bf16);
    unpack(x, rp, pre.bf16);
#pragma unroll
    for (int e = 0; e < N; e++) d[e] *= gelu_grad(x[e]);
    store(out, i, d);
  }
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

// Elements in fours, as they are drawn, or one by one.
template <int N>
__global__ void drop_kernel(Any x, Any y, Dropout drop, float scale, int64_t n) {
  DW_GRID_STRIDE(k, n / N) {
    float v[N];
    load(v, x, k * N);
#pragma unroll
    for (int e = 0; e < N; e += (N == 8 ? 4 : 1)) {
      constexpr int kTogether = N == 8 ? 4 : 1;
      float factor[kTogether];
      keep(factor, drop, k * N + e);
#pragma unroll
      for (int i = 0; i < kTogether; i++) v[e + i] = factor[i] == 0 ? 0.0f : scale * factor[i] * v[e + i];
    }
    store(y, k * N, v);
  }
}

}  // namespace

// y = alpha·a + beta·b                               a, y [..]; b as a, or its trailing shape, repeating
void add(Context& c, const Add& q) {
  const View &a = q.a, &b = q.b, &y = q.y;
  const int64_t n = a.size(), period = b.size();
  if (n == 0) return;
  with_eight(n | period, {a.data, b.data, y.data}, [&](auto lanes) {
    constexpr int N = decltype(lanes)::value;
    launch(c, add_kernel<N>, grid_for(n / N, c.processors), kThreads, any_of(a), any_of(b), any_of(y), float(q.alpha),
           float(q.beta), n, period);
  });
}

// y = gelu(x)                                        x, y [..]
void gelu(Context& c, const Gelu& q) {
  const int64_t n = q.x.size();
  if (n == 0) return;
  with_eight(n, {q.x.data, q.y.data}, [&](auto lanes) {
    constexpr int N = decltype(lanes)::value;
    launch(c, gelu_kernel<N>, grid_for(n / N, c.processors), kThreads, any_of(q.x), any_of(q.y), n);
  });
}

// y = scale·keep ⊙ x; what is dropped is 0           x, y, mask [..]
void drop(Context& c, const Drop& q) {
  const int64_t n = q.x.size();
  if (n == 0) return;
  with_eight(n, {q.x.data, q.y.data, q.mask.data}, [&](auto lanes) {
    constexpr int N = decltype(lanes)::value;
    launch(c, drop_kernel<N>, grid_for(n / N, c.processors), kThreads, any_of(q.x), any_of(q.y), dropout(q.draw()),
           float(q.scale), n);
  });
}

// dpre = dy ⊙ gelu'(pre)                             dy, pre, dpre [..]
void gelu_backward(Context& c, const GeluBackward& q) {
  const View &dy = q.dy, &pre = q.pre, &out = q.dpre;
  const int64_t n = pre.size();
  if (n == 0) return;
  with_eight(n, {dy.data, pre.data, out.data}, [&](auto lanes) {
    constexpr int N = decltype(lanes)::value;
    launch(c, gelu_backward_kernel<N>, grid_for(n / N, c.processors), kThreads, any_of(dy), any_of(pre), any_of(out),
           n);
  });
}

}  // namespace cuda
}  // namespace dw
