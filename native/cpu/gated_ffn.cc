// The gated expert FFN, rows [R, D], F = inner width, H = gate width. For a row x of language l:
//   G = w_out · relu(W_in · drop(x) + b_in),  g = sigmoid(G + alpha·n)
//   y = y_s + g·delta [+ residual],  delta = drop(FFN_l(x)) - y_s,  y_s = FFN_shared(x)
// Four large products; what lies between them rides in their epilogues, except one pass over [R, D] that joins the two
// FFNs. `delta` is kept for the backward pass: it is all that dg needs, a quarter of one pre-activation.
#include "cpu/ffn.h"
#include "cpu/isa.h"
#include "cpu/simd/math.h"

namespace dw {
namespace cpu {
namespace DW_ISA {

namespace {

void gates(Context& ctx, const GatedFfn& f, const Expert& expert, float* g, float* chosen, float* hidden) {
  Workspace::Frame frame(ctx.workspace);
  const int64_t first = expert.begin, m = expert.rows();
  const Block x = dropped_rows(ctx, frame, f.x, first, m, Dropout(f.draws.of_gate()));
  gate_hidden(ctx, expert, m, x, hidden);
  const float* w = bias_of(frame, expert.gate_out);
  for (int64_t r = 0; r < m; r++) {
    const float noise = float(f.draws.alpha * f.draws.noise_of(first + r));
    const float sum = dot(hidden + r * f.gate, w, f.gate);
    g[first + r] = sigmoid(sum + noise);
    chosen[first + r] = sum >= 0 ? 1.0f : 0.0f;
  }
}

// delta = keep·e - y_s; y = y_s + g·delta + residual. Rows [first, first + m); e is [m, D].
template <class Y, class Res, class D>
void join(Context& ctx, const GatedFfn& f, int64_t first, int64_t m, const float* shared, const float* e,
          const float* g, D* delta, Y* y, const Res* residual) {
  const int64_t d = f.width;
  const Dropout drop(f.draws.of_expert());
  Workspace::Frame frame(ctx.workspace);
  float* keep = frame.take<float>(ctx.threads() * d);
  each_piece(ctx, m, [&](int64_t t, int64_t begin, int64_t end) {
    float* k = keep + t * d;
    for (int64_t i = 0; i < d; i++) k[i] = 1;
    for (int64_t r = begin; r < end; r++) {
      const int64_t at = (first + r) * d;
      if (drop.any()) drop.fill(k, at, d);
      const float gr = gate_share(g[first + r], f.draws.straight);
      for (int64_t i = 0; i < d; i++) {
        const float s = get(shared, at + i), dl = k[i] * e[r * d + i] - s;
        put(delta, r * d + i, dl);
        put(y, at + i, s + gr * dl + (residual ? get(residual, at + i) : 0.0f));
      }
    }
  });
}

}  // namespace

void gated_ffn(Context& ctx, const GatedFfn& f) {
  if (f.rows == 0) return;
  const View &x = f.x, &residual = f.residual, &y = f.y, &delta = f.delta;
  float *g = f.g.as<float>(), *chosen = f.chosen.as<float>();
  for (int64_t r = 0; r < f.rows; r++) g[r] = chosen[r] = 0;
  for (const Expert& expert : f.experts)
    if (expert.rows() > 0) gates(ctx, f, expert, g, chosen, f.gate_hidden.as<float>() + expert.saved * f.gate);

  const Block pre = block_of(f.pre_shared);
  const Block rest = residual ? block_of(residual) : Block();
  if (f.draws.skip || f.covered == 0) {
    ffn(ctx, f.shared, f.rows, block_of(x), block_of(y), f.compute, &pre, residual ? &rest : nullptr);
    return;
  }
  Workspace::Frame frame(ctx.workspace);
  const Block shared = y.dtype == DType::f32 ? block_of(y) : scratch(frame, DType::f32, f.rows, f.width);
  ffn(ctx, f.shared, f.rows, block_of(x), shared, f.compute, &pre, nullptr);
  const float* s = static_cast<const float*>(shared.data);
  with_type(y.dtype, [&](auto* ty) {
    using Y = std::remove_pointer_t<decltype(ty)>;
    with_type(residual ? residual.dtype : DType::f32, [&](auto* tr) {
      const auto* res = residual ? static_cast<decltype(tr)>(residual.data) : nullptr;
      // Rows of no language: y = y_s + residual.
      auto plain = [&](int64_t begin, int64_t end) {
        if (begin >= end || (!res && static_cast<const void*>(s) == y.data)) return;
        ctx.pool.split((end - begin) * f.width, 1 << 14, [&](int64_t a, int64_t b) {
          const int64_t base = begin * f.width;
          for (int64_t i = base + a; i < base + b; i++) put(y.as<Y>(), i, s[i] + (res ? get(res, i) : 0.0f));
        });
      };
      int64_t done = 0;
      for (const Expert& expert : f.experts) {
        const int64_t first = expert.begin, m = expert.rows(), at = expert.saved;
        plain(done, first);
        done = expert.end;
        if (m == 0) continue;
        Workspace::Frame inner(ctx.workspace);
        const Block e = scratch(inner, DType::f32, m, f.width);
        const Block expert_pre = block_of(f.pre_expert, at);
        ffn(ctx, expert.ffn, m, block_of(x, first), e, f.compute, &expert_pre, nullptr);
        with_type(delta.dtype, [&](auto* td) {
          using D = std::remove_pointer_t<decltype(td)>;
          join(ctx, f, first, m, s, static_cast<const float*>(e.data), g, delta.as<D>() + at * f.width, y.as<Y>(), res);
        });
      }
      plain(done, f.rows);
    });
  });
}

void gate_budget(Context&, const GateBudget& q) {
  double sum = 0, count = 0;
  for (const View& g : q.gates) {
    for (int64_t i = 0; i < g.size(); i++) sum += double(g.as<float>()[i]);
    count += double(g.size());
  }
  if (q.rows > 0) count = q.rows;
  const double mean = count > 0 ? sum / count : 0, gap = count > 0 ? mean - q.budget : 0;
  *q.mean.as<float>() = float(mean);
  *q.loss.as<float>() = float(gap < 0 ? -gap : gap);
  *q.dgate.as<float>() = gap == 0 ? 0.0f : float(q.weight * (gap > 0 ? 1 : -1) / count);
}

// Inference: G ≥ 0 sends a row to its language's FFN, else to the shared one, and the other is never computed. Rows are
// gathered by FFN, go through two products and are put back.
void gated_ffn_hard(Context& ctx, const GatedFfnHard& f) {
  if (f.rows == 0) return;
  const View &x = f.x, &residual = f.residual, &y = f.y;
  const int64_t d = f.width;
  float* g = f.g.as<float>();
  for (int64_t r = 0; r < f.rows; r++) g[r] = 0;
  Workspace::Frame frame(ctx.workspace);
  for (const Expert& expert : f.experts) {
    const int64_t first = expert.begin, m = expert.rows();
    if (m == 0) continue;
    Workspace::Frame inner(ctx.workspace);
    float* hidden = inner.take<float>(m * f.gate);
    gate_hidden(ctx, expert, m, block_of(x, first), hidden);
    const float* w = bias_of(inner, expert.gate_out);
    for (int64_t r = 0; r < m; r++) g[first + r] = dot(hidden + r * f.gate, w, f.gate) >= 0 ? 1.0f : 0.0f;
  }

  int64_t* rows = frame.take<int64_t>(f.rows);
  auto run = [&](const Ffn& weights, int64_t n) {
    if (n == 0) return;
    const bool together = rows[n - 1] - rows[0] + 1 == n;
    if (together) {
      const Block rest = residual ? block_of(residual, rows[0]) : Block();
      ffn(ctx, weights, n, block_of(x, rows[0]), block_of(y, rows[0]), f.compute, nullptr, residual ? &rest : nullptr);
      return;
    }
    Workspace::Frame inner(ctx.workspace);
    const Block in = scratch(inner, x.dtype, n, d), out = scratch(inner, DType::f32, n, d);
    const int64_t bytes = d * size_of(x.dtype);
    ctx.pool.split(n, 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++)
        std::memcpy(static_cast<char*>(in.data) + i * bytes, x.as<char>() + rows[i] * bytes, size_t(bytes));
    });
    ffn(ctx, weights, n, in, out, f.compute, nullptr, nullptr);
    with_type(y.dtype, [&](auto* ty) {
      with_type(residual ? residual.dtype : DType::f32, [&](auto* tr) {
        auto* to = static_cast<decltype(ty)>(y.data);
        const auto* res = residual ? static_cast<decltype(tr)>(residual.data) : nullptr;
        ctx.pool.split(n, 16, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; i++) {
            const float* from = static_cast<const float*>(out.data) + i * d;
            const int64_t at = rows[i] * d;
            for (int64_t k = 0; k < d; k++) put(to, at + k, from[k] + (res ? get(res, at + k) : 0.0f));
          }
        });
      });
    });
  };
  int64_t n = 0;
  for (int64_t r = 0; r < f.rows; r++)
    if (g[r] == 0) rows[n++] = r;
  run(f.shared, n);
  for (const Expert& expert : f.experts) {
    n = 0;
    for (int64_t r = expert.begin; r < expert.end; r++)
      if (g[r] != 0) rows[n++] = r;
    run(expert.ffn, n);
  }
}

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
