// The gated expert FFN, rows [R, D], F = inner width, H = gate width. For a row x of language l:
//   G = w_out · relu(W_in · drop(x) + b_in),  g = sigmoid(G + alpha·n)
//   y = y_s + g·delta [+ residual],  delta = drop(FFN_l(x)) - y_s,  y_s = FFN_shared(x)
// The products are cuBLASLt's, with biases in them. Between them one pass each: the erf GELU, and one that drops, takes
// the difference, blends and adds the residual. Noise and masks are drawn where they are used.
#include "cast.h"
#include "ffn.cuh"
#include "kernels.h"

namespace dw {
namespace cuda {

namespace {

template <int N, class P, class A>
__global__ void gelu_kernel(const P* __restrict__ pre, A* __restrict__ act, int64_t n) {
  DW_GRID_STRIDE(i, n / N) {
    float x[N];
    load(x, pre, i * N);
#pragma unroll
    for (int e = 0; e < N; e++) x[e] = gelu(x[e]);
    store(act, i * N, x);
  }
}

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

// hidden [m, H] becomes relu(hidden), g[r] = sigmoid(w·hidden[r] + alpha·noise); a warp for each row.
__global__ void gate_kernel(float* __restrict__ hidden, const float* __restrict__ w, float* __restrict__ g, int64_t m,
                            int64_t width, int64_t first, const float* __restrict__ noise, double alpha, uint32_t step,
                            uint32_t op, uint64_t seed) {
  const int64_t r = int64_t(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (r >= m) return;
  float sum = 0;
  for (int64_t i = threadIdx.x % 32; i < width; i += 32) {
    float h = hidden[r * width + i];
    h = h > 0 || h != h ? h : 0.0f;
    hidden[r * width + i] = h;
    sum = fmaf(h, w[i], sum);
  }
  for (int i = 16; i > 0; i /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, i);
  if (threadIdx.x % 32 != 0) return;
  if (alpha != 0) {
    const uint64_t row = uint64_t(first + r);
    sum += float(alpha * double(noise ? noise[row] : normal_at(row, step, op, seed)));
  }
  g[first + r] = 1 / (1 + expf(-sum));
}

// Rows of one language: delta = keep·e - y, y = y + g·delta + residual. All but e and delta count rows from the first
// of the call.
template <int N, class Y, class R>
__global__ void join_kernel(Y* __restrict__ y, const Y* __restrict__ e, Y* __restrict__ delta,
                            const R* __restrict__ residual, const float* __restrict__ g, int64_t first, int64_t m,
                            int64_t width, Dropout drop) {
  DW_GRID_STRIDE(i, m * width / N) {
    const int64_t at = first * width + i * N;
    const float gate = g[at / width];
    float s[N], x[N], k[N], r[N] = {};
    load(s, y, at);
    load(x, e, i * N);
    keep(k, drop, at);
    if (residual) load(r, residual, at);
#pragma unroll
    for (int n = 0; n < N; n++) {
      x[n] = k[n] * x[n] - s[n];
      s[n] += gate * x[n] + r[n];
    }
    store(delta, i * N, x);
    store(y, at, s);
  }
}

template <int N, class Y, class R>
__global__ void add_kernel(Y* __restrict__ y, const R* __restrict__ residual, int64_t n) {
  DW_GRID_STRIDE(i, n / N) {
    float a[N], b[N];
    load(a, y, i * N);
    load(b, residual, i * N);
#pragma unroll
    for (int e = 0; e < N; e++) a[e] += b[e];
    store(y, i * N, a);
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

void gates(Context& c, const GatedFfn& f, int64_t l, float* g, const View& hidden, DType compute) {
  Workspace::Frame frame(c.workspace);
  const int64_t first = f.begin(l), m = f.end(l) - first;
  const Rows x = dropped_rows(c, frame, f.at(f.x), first, m, gate_dropout(f), compute);
  const Rows h = rows_of(hidden, f.saved_row(l));
  Gemm in = times_transposed(f.at(f.expert(l, kGateInW)), m, x, h, compute);
  in.bias = as_floats(c, frame, f.at(f.expert(l, kGateInB)));
  gemm(c, in);
  const float* noise = f.at(f.noise) ? f.at(f.noise).as<float>() : nullptr;
  launch(c, gate_kernel, (m + kThreads / 32 - 1) / (kThreads / 32), kThreads, static_cast<float*>(h.data),
         as_floats(c, frame, f.at(f.expert(l, kGateOutW))), g, m, f.gate, first, noise, f.alpha(), f.step(), f.op(),
         f.seed());
}

// y += residual for rows [begin, end).
void add_residual(Context& c, const View& y, const View& residual, int64_t begin, int64_t end) {
  const int64_t n = (end - begin) * y.cols();
  if (n == 0) return;
  const Rows to = rows_of(y, begin), from = rows_of(residual, begin);
  with_lanes(y.cols(), {to.data, from.data}, [&](auto lanes) {
    constexpr int N = decltype(lanes)::value;
    with_type(to.type, [&](auto* ty) {
      with_type(from.type, [&](auto* tr) {
        using Y = std::remove_pointer_t<decltype(ty)>;
        using R = std::remove_pointer_t<decltype(tr)>;
        launch(c, add_kernel<N, Y, R>, grid_for(n / N, c.processors), kThreads, static_cast<Y*>(to.data),
               static_cast<const R*>(from.data), n);
      });
    });
  });
}

void join(Context& c, const GatedFfn& f, int64_t l, Rows e, Rows delta, const View& y, const float* g) {
  const View& residual = f.at(f.residual);
  const int64_t first = f.begin(l), m = f.end(l) - first;
  const Dropout drop = expert_dropout(f);
  with_lanes(f.width, {e.data, delta.data, y.data, residual.data, drop.mask}, [&](auto lanes) {
    constexpr int N = decltype(lanes)::value;
    with_type(y.dtype, [&](auto* ty) {
      with_type(residual ? residual.dtype : DType::f32, [&](auto* tr) {
        using Y = std::remove_pointer_t<decltype(ty)>;
        using R = std::remove_pointer_t<decltype(tr)>;
        launch(c, join_kernel<N, Y, R>, grid_for(m * f.width / N, c.processors), kThreads, y.as<Y>(),
               static_cast<const Y*>(e.data), static_cast<Y*>(delta.data), static_cast<const R*>(residual.data), g,
               first, m, f.width, drop);
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

void ffn(Context& c, const Call& call, size_t w, int64_t m, Rows x, Rows pre, Rows y, DType compute, bool add) {
  Workspace::Frame frame(c.workspace);
  Gemm up = times_transposed(call.in[w], m, x, pre, compute);
  up.bias = as_floats(c, frame, call.in[w + 1]);
  gemm(c, up);
  const Rows act = scratch(frame, compute, m, pre.columns);
  const int64_t n = m * pre.columns;
  if (n > 0)
    with_lanes(pre.columns, {pre.data}, [&](auto lanes) {
      constexpr int N = decltype(lanes)::value;
      with_type(pre.type, [&](auto* tp) {
        with_type(compute, [&](auto* ta) {
          using P = std::remove_pointer_t<decltype(tp)>;
          using A = std::remove_pointer_t<decltype(ta)>;
          launch(c, gelu_kernel<N, P, A>, grid_for(n / N, c.processors), kThreads, static_cast<const P*>(pre.data),
                 static_cast<A*>(act.data), n);
        });
      });
    });
  Gemm down = times_transposed(call.in[w + 2], m, act, y, compute);
  down.bias = as_floats(c, frame, call.in[w + 3]);
  down.beta = add ? 1 : 0;
  gemm(c, down);
}

void gated_ffn(Context& c, const Call& call) {
  const GatedFfn f = gated_ffn_call(call);
  if (f.rows == 0) return;
  const DType compute = DType(call.integer(f.settings + 7));
  const View &x = f.at(f.x), &residual = f.at(f.residual), &y = call.out[0], &delta = call.out[5];
  float* g = call.out[1].as<float>();
  if (f.covered < f.rows) cudaMemsetAsync(g, 0, size_t(f.rows) * 4, c.stream);
  for (int64_t l = 0; l < f.languages; l++)
    if (f.end(l) > f.begin(l)) gates(c, f, l, g, call.out[2], compute);

  const bool plain = f.skip() || f.covered == 0;
  if (plain && residual) convert(c, residual.data, residual.dtype, y.data, y.dtype, y.size());
  ffn(c, call, f.shared, f.rows, rows_of(x), rows_of(call.out[3]), rows_of(y), compute, plain && residual);
  if (plain) return;
  int64_t done = 0;
  for (int64_t l = 0; l < f.languages; l++) {
    const int64_t first = f.begin(l), m = f.end(l) - first, at = f.saved_row(l);
    if (residual) add_residual(c, y, residual, done, first);
    done = f.end(l);
    if (m == 0) continue;
    Workspace::Frame frame(c.workspace);
    const Rows e = scratch(frame, y.dtype, m, f.width);
    ffn(c, call, f.expert(l, kFc1W), m, rows_of(x, first), rows_of(call.out[4], at), e, compute, false);
    join(c, f, l, e, rows_of(delta, at), y, g);
  }
  if (residual) add_residual(c, y, residual, done, f.rows);
}

void gate_budget(Context& c, const Call& call) {
  Workspace::Frame frame(c.workspace);
  double* total = frame.take<double>(1);
  double count = 0;
  cudaMemsetAsync(total, 0, sizeof *total, c.stream);
  for (const View& g : call.in) {
    if (g.size() == 0) continue;
    launch(c, gate_sum_kernel, 1, kThreads, g.as<float>(), g.size(), total);
    count += double(g.size());
  }
  if (call.num[2] > 0) count = call.num[2];
  launch(c, budget_kernel, 1, 1, total, count, call.num[0], call.num[1], call.out[0].as<float>(),
         call.out[1].as<float>(), call.out[2].as<float>());
}

}  // namespace cuda
}  // namespace dw
