// Backward of the gated expert FFN (gated_ffn.cu). With dy [R, D] and the budget's dgate, for a row of language l:
//   dG = g(1 - g)·(⟨dy, delta⟩ + dgate)          u = g·keep ⊙ dy
//   dpre_s = (1 - g)·gelu'(pre_s) ⊙ (dy·W2_s)    dpre_l = gelu'(pre_l) ⊙ (u·W2_l)
//   dx = keep_gate ⊙ (dhid·W_in) + dpre_l·W1_l + dpre_s·W1_s,   dhid = dG·w_out ⊙ 1[hidden > 0]
//   dW2_l += uᵀ·gelu(pre_l)   dW1_l += dpre_lᵀ·x   dW_in += dhidᵀ·drop(x)   dw_out += dGᵀ·hidden   and the biases.
// One pass over dy and delta gives dG and u; one over the pre-activations gives dpre, gelu(pre) and the sums of db1. dx
// gathers in f32. Column sums are taken in chunks of rows and then over the chunks: the same order every time. Skipped:
// only the gate and the shared FFN, and dy does not reach the gate.
#include "cast.h"
#include "ffn.cuh"
#include "kernels.h"

namespace dw {
namespace cuda {

namespace {

// dG and, where u is given, u and the product with delta. All but delta, u and dG count rows from the first of the
// call; a warp for each row.
template <int N, class Y, class S, class U>
__global__ void row_kernel(const Y* __restrict__ dy, const S* __restrict__ delta, const float* __restrict__ g,
                           const float* __restrict__ budget, U* __restrict__ u, float* __restrict__ dgate,
                           int64_t first, int64_t m, int64_t width, bool straight, Dropout drop) {
  const int64_t r = int64_t(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (r >= m) return;
  const float gate = g[first + r], share = gate_share(gate, straight);
  float sum = 0;
  if (u)
    for (int64_t i = threadIdx.x % 32 * N; i < width; i += 32 * N) {
      const int64_t at = (first + r) * width + i;
      float y[N], s[N], k[N];
      load(y, dy, at);
      load(s, delta, r * width + i);
      keep(k, drop, at);
#pragma unroll
      for (int n = 0; n < N; n++) {
        sum = fmaf(y[n], s[n], sum);
        y[n] *= share * k[n];
      }
      store(u, r * width + i, y);
    }
  for (int i = 16; i > 0; i /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, i);
  if (threadIdx.x % 32 == 0) dgate[r] = gate * (1 - gate) * (sum + (budget ? *budget : 0.0f));
}

// d becomes (1 - g)·gelu'(pre) ⊙ d, or gelu'(pre) ⊙ d without g. Optional: act = gelu(pre), and the sums of d's columns
// in sums [chunks, columns].
template <int N, class P, class C>
__global__ void slope_kernel(Strips z, const P* __restrict__ pre, C* __restrict__ d, const float* __restrict__ g,
                             bool straight, C* __restrict__ act, float* __restrict__ sums) {
  DW_STRIP(z, N);
  float sum[N] = {};
  for (int64_t r = begin; r < end; r++) {
    const float scale = g ? 1 - gate_share(g[r], straight) : 1.0f;
    float x[N], v[N];
    load(x, pre, r * z.columns + column);
    load(v, d, r * z.columns + column);
#pragma unroll
    for (int n = 0; n < N; n++) {
      v[n] *= scale * gelu_grad(x[n]);
      sum[n] += v[n];
      x[n] = gelu(x[n]);
    }
    store(d, r * z.columns + column, v);
    if (act) store(act, r * z.columns + column, x);
  }
  if (sums) store(sums, chunk * z.columns + column, sum);
}

template <int N, class T>
__global__ void column_kernel(Strips z, const T* __restrict__ x, float* __restrict__ sums) {
  DW_STRIP(z, N);
  float sum[N] = {};
  for (int64_t r = begin; r < end; r++) {
    float v[N];
    load(v, x, r * z.columns + column);
#pragma unroll
    for (int n = 0; n < N; n++) sum[n] += v[n];
  }
  store(sums, chunk * z.columns + column, sum);
}

// dhid, and the sums of its columns and of dG·hidden's.
template <class C>
__global__ void hidden_kernel(Strips z, const float* __restrict__ hidden, const float* __restrict__ w,
                              const float* __restrict__ dgate, C* __restrict__ dhid, float* __restrict__ bias_sums,
                              float* __restrict__ weight_sums) {
  DW_STRIP(z, 1);
  float of_bias = 0, of_weight = 0;
  for (int64_t r = begin; r < end; r++) {
    const float h = hidden[r * z.columns + column], slope = h > 0 ? dgate[r] * w[column] : 0.0f;
    of_bias += slope;
    of_weight = fmaf(dgate[r], h, of_weight);
    put(dhid, r * z.columns + column, slope);
  }
  bias_sums[chunk * z.columns + column] = of_bias;
  weight_sums[chunk * z.columns + column] = of_weight;
}

// to[i] += Σ_chunk sums[chunk, i]
__global__ void add_sums_kernel(const float* __restrict__ sums, int64_t chunks, int64_t columns,
                                float* __restrict__ to) {
  DW_GRID_STRIDE(i, columns) {
    float sum = 0;
    for (int64_t k = 0; k < chunks; k++) sum += sums[k * columns + i];
    to[i] += sum;
  }
}

// out[i] = dx[i] + keep·gate[i - first], rows of one language.
template <int N, class G, class O>
__global__ void finish_kernel(const float* __restrict__ dx, const G* __restrict__ gate, O* __restrict__ out,
                              int64_t first, int64_t n, Dropout drop) {
  DW_GRID_STRIDE(i, n / N) {
    float x[N], v[N], k[N];
    load(x, dx, first + i * N);
    load(v, gate, i * N);
    keep(k, drop, first + i * N);
#pragma unroll
    for (int e = 0; e < N; e++) x[e] += k[e] * v[e];
    store(out, first + i * N, x);
  }
}

struct Backward {
  Context& c;
  const GatedFfnBackward& f;
  DType compute;

  const float* g() const { return f.g.as<float>(); }

  void add_sums(const Strips& s, const float* sums, const View& to) const {
    launch(c, add_sums_kernel, grid_for(s.columns, c.processors), kThreads, sums, s.chunks, s.columns, to.as<float>());
  }

  void rows(const Expert& e, float* dgate, Rows u) const {
    const int64_t first = e.begin, m = e.rows();
    // Skipped: delta has no rows, and is not read.
    const Rows delta = u.data ? rows_of(f.delta, e.saved) : Rows{nullptr, f.delta.dtype, f.width};
    const float* budget = f.dgate ? f.dgate.as<float>() : nullptr;
    const Dropout drop = dropout(f.draws.of_expert());
    with_lanes(f.width, {f.dy.data, delta.data, u.data, drop.mask}, [&](auto lanes) {
      constexpr int N = decltype(lanes)::value;
      with_type(f.dy.dtype, [&](auto* ty) {
        with_type(delta.type, [&](auto* ts) {
          with_type(u.type, [&](auto* tu) {
            using Y = std::remove_pointer_t<decltype(ty)>;
            using S = std::remove_pointer_t<decltype(ts)>;
            using U = std::remove_pointer_t<decltype(tu)>;
            launch(c, row_kernel<N, Y, S, U>, (m + kThreads / 32 - 1) / (kThreads / 32), kThreads, f.dy.as<Y>(),
                   static_cast<const S*>(delta.data), g(), budget, static_cast<U*>(u.data), dgate, first, m, f.width,
                   f.draws.straight, drop);
          });
        });
      });
    });
  }

  // dpre = gelu'(pre) ⊙ (d·W2) [⊙ (1 - g)]; adds its columns to `bias` and writes gelu(pre) to `act` when given.
  Rows through(Workspace::Frame& frame, const View& fc2, int64_t m, Rows d, Rows pre, const float* gate,
               const View* bias, void* act) const {
    const Rows dpre = scratch(frame, compute, m, f.inner);
    gemm(c, times(fc2, m, d, dpre, compute));
    if (f.inner == 0) return dpre;
    with_lanes(f.inner, {pre.data}, [&](auto lanes) {
      constexpr int N = decltype(lanes)::value;
      const Strips s = strips_of(c, m, f.inner, N);
      float* sums = bias ? frame.take<float>(s.chunks * s.columns) : nullptr;
      with_type(pre.type, [&](auto* tp) {
        with_type(compute, [&](auto* tc) {
          using P = std::remove_pointer_t<decltype(tp)>;
          using C = std::remove_pointer_t<decltype(tc)>;
          launch(c, slope_kernel<N, P, C>, s.blocks(), s.threads, s, static_cast<const P*>(pre.data),
                 static_cast<C*>(dpre.data), gate, f.draws.straight, static_cast<C*>(act), sums);
        });
      });
      if (bias) add_sums(s, sums, *bias);
    });
    return dpre;
  }

  // Adds the expert's part of dx; its gradients.
  void expert(const Expert& e, const ExpertGradients& gradients, Rows u, float* dx) const {
    Workspace::Frame frame(c.workspace);
    const int64_t first = e.begin, m = e.rows();
    const View &dw1 = gradients.fc1, &db1 = gradients.fc1_bias, &dw2 = gradients.fc2, &db2 = gradients.fc2_bias;
    Rows act;
    if (dw2) act = scratch(frame, compute, m, f.inner);
    const Rows dpre =
        through(frame, e.ffn.fc2, m, u, rows_of(f.pre_expert, e.saved), nullptr, db1 ? &db1 : nullptr, act.data);
    Gemm up = times(e.ffn.fc1, m, dpre, {dx + first * f.width, DType::f32, f.width}, compute);
    up.beta = 1;
    gemm(c, up);
    if (dw1) gemm(c, weight_gradient(dw1, m, dpre, rows_of(f.x, first), compute));
    if (dw2) gemm(c, weight_gradient(dw2, m, u, act, compute));
    if (!db2 || f.width == 0) return;
    with_lanes(f.width, {u.data}, [&](auto lanes) {
      constexpr int N = decltype(lanes)::value;
      const Strips s = strips_of(c, m, f.width, N);
      float* sums = frame.take<float>(s.chunks * s.columns);
      with_type(u.type, [&](auto* tu) {
        using U = std::remove_pointer_t<decltype(tu)>;
        launch(c, column_kernel<N, U>, s.blocks(), s.threads, s, static_cast<const U*>(u.data), sums);
      });
      add_sums(s, sums, db2);
    });
  }

  // The gate's gradients, and the result: dx + the gate's part of it.
  void gate(const Expert& e, const ExpertGradients& gradients, const float* dgate, const float* dx) const {
    if (f.gate == 0) return plain(dx, e.begin, e.end);
    Workspace::Frame frame(c.workspace);
    const int64_t first = e.begin, m = e.rows();
    const float* hidden = f.gate_hidden.as<float>() + e.saved * f.gate;
    const Rows dhid = scratch(frame, compute, m, f.gate);
    const Strips s = strips_of(c, m, f.gate, 1);
    float *bias_sums = frame.take<float>(s.chunks * s.columns), *weight_sums = frame.take<float>(s.chunks * s.columns);
    const float* w = as_floats(c, frame, e.gate_out);
    with_type(compute, [&](auto* tc) {
      using C = std::remove_pointer_t<decltype(tc)>;
      launch(c, hidden_kernel<C>, s.blocks(), s.threads, s, hidden, w, dgate, static_cast<C*>(dhid.data), bias_sums,
             weight_sums);
    });
    if (gradients.gate_in_bias) add_sums(s, bias_sums, gradients.gate_in_bias);
    if (gradients.gate_out) add_sums(s, weight_sums, gradients.gate_out);
    const Dropout drop = dropout(f.draws.of_gate());
    if (gradients.gate_in)
      gemm(c,
           weight_gradient(gradients.gate_in, m, dhid, dropped_rows(c, frame, f.x, first, m, drop, compute), compute));
    const Rows back = scratch(frame, compute, m, f.width);
    gemm(c, times(e.gate_in, m, dhid, back, compute));
    const int64_t n = m * f.width;
    with_lanes(f.width, {dx, back.data, f.dx.data, drop.mask}, [&](auto lanes) {
      constexpr int N = decltype(lanes)::value;
      with_type(compute, [&](auto* tg) {
        with_type(f.dx.dtype, [&](auto* to) {
          using G = std::remove_pointer_t<decltype(tg)>;
          using O = std::remove_pointer_t<decltype(to)>;
          launch(c, finish_kernel<N, G, O>, grid_for(n / N, c.processors), kThreads, dx,
                 static_cast<const G*>(back.data), f.dx.as<O>(), first * f.width, n, drop);
        });
      });
    });
  }

  // The result is dx for rows [begin, end).
  void plain(const float* dx, int64_t begin, int64_t end) const {
    const Rows to = rows_of(f.dx, begin);
    convert(c, dx + begin * f.width, DType::f32, to.data, to.type, (end - begin) * f.width);
  }
};

}  // namespace

void gated_ffn_backward(Context& c, const GatedFfnBackward& f) {
  if (f.rows == 0) return;
  const DType compute = f.compute;
  const bool gated = f.covered > 0, experts = gated && !f.draws.skip;
  const Backward b{c, f, compute};
  Workspace::Frame frame(c.workspace);
  float* dx = gated ? frame.take<float>(f.rows * f.width) : nullptr;
  {
    Workspace::Frame inner(c.workspace);
    const Rows dpre = b.through(inner, f.shared.fc2, f.rows, rows_of(f.dy), rows_of(f.pre_shared),
                                experts ? b.g() : nullptr, nullptr, nullptr);
    const Rows to = gated ? Rows{dx, DType::f32, f.width} : rows_of(f.dx);
    gemm(c, times(f.shared.fc1, f.rows, dpre, to, compute));
  }
  if (!gated) return;
  int64_t done = 0;
  for (size_t l = 0; l < f.experts.size(); l++) {
    const Expert& e = f.experts[l];
    b.plain(dx, done, e.begin);
    done = e.end;
    const int64_t m = e.rows();
    if (m == 0) continue;
    Workspace::Frame inner(c.workspace);
    float* dgate = inner.take<float>(m);
    Rows u{nullptr, compute, f.width};
    if (experts) u = scratch(inner, compute, m, f.width);
    b.rows(e, dgate, u);
    if (experts) b.expert(e, f.gradients[l], u, dx);
    b.gate(e, f.gradients[l], dgate, dx);
  }
  b.plain(dx, done, f.rows);
}

}  // namespace cuda
}  // namespace dw
