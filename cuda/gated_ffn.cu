// The gated expert FFN, rows [R, D], F = inner width, H = gate width. For a row x of language l:
//   G = w_out · relu(W_in · drop(x) + b_in),  g = sigmoid(G + alpha·n)
//   y = y_s + g·delta [+ residual],  delta = drop(FFN_l(x)) - y_s,  y_s = FFN_shared(x)
// The products are cuBLASLt's; bias and the erf GELU follow the first as in a linear layer (epilogue.h), and one pass
// after the second adds the biases, drops, takes the difference, blends and adds the residual. Noise and masks are
// drawn where they are used. What the backward reads is kept in the products' type.
#include "cast.h"
#include "epilogue.h"
#include "ffn.cuh"
#include "kernels.h"

namespace dw {
namespace cuda {

namespace {

// out[i] = keep(first + i)·x[first + i]
template <int N, class X, class O>
__global__ void drop_kernel(const X* __restrict__ x, O* __restrict__ out, int64_t first, int64_t n, Dropout drop) {
  DW_GRID_STRIDE(i, n / N) {
    float v[N], k[N];
    load(v, x, first + i * N);
    keep(k, drop, first + i * N);
#pragma unroll
    for (int e = 0; e < N; e++) v[e] *= k[e];
    store(out, i * N, v);
  }
}

// hidden [m, H] becomes relu(hidden + bias), g[r] = sigmoid(w·hidden[r] + alpha·noise), chosen[r] = 1 where that is ≥ 0
// without noise; a warp for each row.
__global__ void gate_kernel(float* __restrict__ hidden, const float* __restrict__ bias, const float* __restrict__ w,
                            float* __restrict__ g, float* __restrict__ chosen, int64_t m, int64_t width, int64_t first,
                            const float* __restrict__ noise, double alpha, uint32_t step, uint32_t op, uint64_t seed) {
  const int64_t r = int64_t(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (r >= m) return;
  float sum = 0;
  for (int64_t i = threadIdx.x % 32; i < width; i += 32) {
    float h = hidden[r * width + i] + bias[i];
    h = h > 0 || h != h ? h : 0.0f;
    hidden[r * width + i] = h;
    sum = fmaf(h, w[i], sum);
  }
  for (int i = 16; i > 0; i /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, i);
  if (threadIdx.x % 32 != 0) return;
  chosen[first + r] = sum >= 0 ? 1.0f : 0.0f;
  if (alpha != 0) {
    const uint64_t row = uint64_t(first + r);
    sum += float(alpha * double(noise ? noise[row] : normal_at(row, step, op, seed)));
  }
  g[first + r] = 1 / (1 + expf(-sum));
}

// Rows [first, first + rows) of one language: y_s = y + bias_s, delta = keep·(e + bias_e) - y_s, y = y_s + g·delta +
// residual. All but e and delta count rows from the first of the call.
template <int N, class Y, class R, class D>
__global__ void join_kernel(Strips z, int64_t first, Y* __restrict__ y, const float* __restrict__ bias_s,
                            const Y* __restrict__ e, const float* __restrict__ bias_e, D* __restrict__ delta,
                            const R* __restrict__ residual, const float* __restrict__ g, bool straight, Dropout drop) {
  DW_STRIP(z, N);
  float s[N], x[N], k[N], of_s[N], of_e[N], rest[N] = {};
  load(of_s, bias_s, column);
  load(of_e, bias_e, column);
#pragma unroll 2
  for (int64_t r = begin; r < end; r++) {
    const int64_t in = r * z.columns + column, at = first * z.columns + in;
    const float gate = gate_share(g[first + r], straight);
    load(s, y, at);
    load(x, e, in);
    if (residual) load(rest, residual, at);
    keep(k, drop, at);
#pragma unroll
    for (int n = 0; n < N; n++) {
      s[n] += of_s[n];
      x[n] = k[n] * (x[n] + of_e[n]) - s[n];
      s[n] += gate * x[n] + rest[n];
    }
    store(delta, in, x);
    store(y, at, s);
  }
}

// y += bias [+ residual]
template <int N, class Y, class R>
__global__ void add_kernel(Strips z, Y* __restrict__ y, const float* __restrict__ bias,
                           const R* __restrict__ residual) {
  DW_STRIP(z, N);
  float s[N], b[N], rest[N] = {};
  load(b, bias, column);
#pragma unroll 4
  for (int64_t r = begin; r < end; r++) {
    const int64_t at = r * z.columns + column;
    load(s, y, at);
    if (residual) load(rest, residual, at);
#pragma unroll
    for (int n = 0; n < N; n++) s[n] += b[n] + rest[n];
    store(y, at, s);
  }
}

// The sum of all g, a block; then the three results. Sums are taken in a fixed order, in double.
__global__ void __launch_bounds__(kThreads)
    gate_sum_kernel(const float* __restrict__ g, int64_t n, double* __restrict__ total) {
  __shared__ double parts[kThreads];
  double sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) sum += double(g[i]);
  parts[threadIdx.x] = sum;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (int(threadIdx.x) < half) parts[threadIdx.x] += parts[threadIdx.x + half];
  }
  if (threadIdx.x == 0) *total += parts[0];
}
__global__ void budget_kernel(const double* total, double count, double budget, double weight, float* mean, float* loss,
                              float* dgate) {
  const double m = count > 0 ? *total / count : 0, gap = count > 0 ? m - budget : 0;
  *mean = float(m);
  *loss = float(fabs(gap));
  *dgate = gap == 0 ? 0.0f : float(weight * (gap > 0 ? 1 : -1) / count);
}

void gates(Context& c, const GatedFfn& f, const Expert& expert, float* g) {
  Workspace::Frame frame(c.workspace);
  const int64_t first = expert.begin, m = expert.rows();
  const Rows x = dropped_rows(c, frame, f.x, first, m, dropout(f.draws.of_gate()), f.compute);
  const Rows h = rows_of(f.gate_hidden, expert.saved);
  gemm(c, times_transposed(expert.gate_in, m, x, h, f.compute));
  const float* noise = f.draws.noise ? f.draws.noise.as<float>() : nullptr;
  launch(c, gate_kernel, (m + kThreads / 32 - 1) / (kThreads / 32), kThreads, static_cast<float*>(h.data),
         as_floats(c, frame, expert.gate_in_bias), as_floats(c, frame, expert.gate_out), g, f.chosen.as<float>(), m,
         f.gate, first, noise, f.draws.alpha, f.draws.step, f.draws.noise_op(), f.draws.seed);
}

// act = gelu(x·W1ᵀ + b1), y = act·W2ᵀ, of m rows: an FFN less its last bias. pre [m, F] receives the pre-activations.
void ffn(Context& c, const Ffn& f, int64_t m, Rows x, Rows pre, Rows y, DType compute) {
  Workspace::Frame frame(c.workspace);
  const Rows act = scratch(frame, compute, m, pre.columns);
  Epilogue e{};
  e.bias = as_floats(c, frame, f.fc1_bias);
  e.gelu = true;
  e.pre = {pre.data, pre.type == DType::bf16};
  e.y = {act.data, compute == DType::bf16};
  product(c, times_transposed(f.fc1, m, x, act, compute), e);
  gemm(c, times_transposed(f.fc2, m, act, y, compute));
}

// y += bias [+ residual] of rows [begin, end).
void add(Context& c, const View& y, const float* bias, const View& residual, int64_t begin, int64_t end) {
  if (begin == end || y.cols() == 0) return;
  const Rows to = rows_of(y, begin), rest = residual ? rows_of(residual, begin) : Rows();
  with_lanes(y.cols(), {to.data, rest.data, bias}, [&](auto lanes) {
    constexpr int N = decltype(lanes)::value;
    const Strips s = strips_of(c, end - begin, y.cols(), N);
    with_type(to.type, [&](auto* ty) {
      with_type(rest.type, [&](auto* tr) {
        using Y = std::remove_pointer_t<decltype(ty)>;
        using R = std::remove_pointer_t<decltype(tr)>;
        launch(c, add_kernel<N, Y, R>, s.blocks(), s.threads, s, static_cast<Y*>(to.data), bias,
               static_cast<const R*>(rest.data));
      });
    });
  });
}

void join(Context& c, const GatedFfn& f, const Expert& expert, Rows e, Rows delta, const float* bias_s,
          const float* g) {
  Workspace::Frame frame(c.workspace);
  const View &y = f.y, &residual = f.residual;
  const Dropout drop = dropout(f.draws.of_expert());
  const float* bias_e = as_floats(c, frame, expert.ffn.fc2_bias);
  with_lanes(f.width, {e.data, delta.data, y.data, residual.data, drop.mask, bias_s, bias_e}, [&](auto lanes) {
    constexpr int N = decltype(lanes)::value;
    const Strips s = strips_of(c, expert.rows(), f.width, N);
    with_type(y.dtype, [&](auto* ty) {
      with_type(residual ? residual.dtype : DType::f32, [&](auto* tr) {
        with_type(delta.type, [&](auto* td) {
          using Y = std::remove_pointer_t<decltype(ty)>;
          using R = std::remove_pointer_t<decltype(tr)>;
          using D = std::remove_pointer_t<decltype(td)>;
          launch(c, join_kernel<N, Y, R, D>, s.blocks(), s.threads, s, expert.begin, y.as<Y>(), bias_s,
                 static_cast<const Y*>(e.data), bias_e, static_cast<D*>(delta.data), residual.as<R>(), g,
                 f.draws.straight, drop);
        });
      });
    });
  });
}

}  // namespace

const float* as_floats(Context& c, Workspace::Frame& frame, const View& v) {
  if (v.dtype == DType::f32) return v.as<float>();
  float* copy = frame.take<float>(v.size());
  convert(c, v.data, v.dtype, copy, DType::f32, v.size());
  return copy;
}

Rows dropped_rows(Context& c, Workspace::Frame& frame, const View& x, int64_t first, int64_t m, const Dropout& drop,
                  DType compute) {
  if (!drop.any()) return rows_of(x, first);
  const Rows out = scratch(frame, compute, m, x.cols());
  const int64_t n = m * x.cols();
  with_lanes(x.cols(), {x.data, drop.mask}, [&](auto lanes) {
    constexpr int N = decltype(lanes)::value;
    with_type(x.dtype, [&](auto* tx) {
      with_type(compute, [&](auto* to) {
        using X = std::remove_pointer_t<decltype(tx)>;
        using O = std::remove_pointer_t<decltype(to)>;
        launch(c, drop_kernel<N, X, O>, grid_for(n / N, c.processors), kThreads, x.as<X>(), static_cast<O*>(out.data),
               first * x.cols(), n, drop);
      });
    });
  });
  return out;
}

void gated_ffn(Context& c, const GatedFfn& f) {
  if (f.rows == 0) return;
  const View &x = f.x, &residual = f.residual, &y = f.y;
  float* g = f.g.as<float>();
  if (f.covered < f.rows)
    for (float* of : {g, f.chosen.as<float>()}) cudaMemsetAsync(of, 0, size_t(f.rows) * 4, c.stream);
  for (const Expert& expert : f.experts)
    if (expert.rows() > 0) gates(c, f, expert, g);

  Workspace::Frame frame(c.workspace);
  const float* bias = as_floats(c, frame, f.shared.fc2_bias);
  ffn(c, f.shared, f.rows, rows_of(x), rows_of(f.pre_shared), rows_of(y), f.compute);
  // Rows between languages have no expert, and none has when it is skipped.
  int64_t done = 0;
  for (const Expert& expert : f.experts) {
    if (f.draws.skip) break;
    const int64_t first = expert.begin, m = expert.rows(), at = expert.saved;
    add(c, y, bias, residual, done, first);
    done = expert.end;
    if (m == 0) continue;
    Workspace::Frame inner(c.workspace);
    const Rows e = scratch(inner, y.dtype, m, f.width);
    ffn(c, expert.ffn, m, rows_of(x, first), rows_of(f.pre_expert, at), e, f.compute);
    if (f.width > 0) join(c, f, expert, e, rows_of(f.delta, at), bias, g);
  }
  add(c, y, bias, residual, done, f.rows);
}

void gate_budget(Context& c, const GateBudget& q) {
  Workspace::Frame frame(c.workspace);
  double* total = frame.take<double>(1);
  double count = 0;
  cudaMemsetAsync(total, 0, sizeof *total, c.stream);
  for (const View& g : q.gates) {
    if (g.size() == 0) continue;
    launch(c, gate_sum_kernel, 1, kThreads, g.as<float>(), g.size(), total);
    count += double(g.size());
  }
  if (q.rows > 0) count = q.rows;
  launch(c, budget_kernel, 1, 1, total, count, q.budget, q.weight, q.mean.as<float>(), q.loss.as<float>(),
         q.dgate.as<float>());
}

}  // namespace cuda
}  // namespace dw
