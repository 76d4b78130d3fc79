// Backward of the gated expert FFN (gated_ffn.cc). With dy [R, D] and the budget's dgate, for a row of language l:
//   dG = g(1 - g)·(⟨dy, delta⟩ + dgate)          u = g·keep ⊙ dy
//   dpre_s = (1 - g)·gelu'(pre_s) ⊙ (dy·W2_s)    dpre_l = gelu'(pre_l) ⊙ (u·W2_l)
//   dx = keep_gate ⊙ (dhid·W_in) + dpre_l·W1_l + dpre_s·W1_s,   dhid = dG·w_out ⊙ 1[hidden > 0]
//   dW2_l += uᵀ·gelu(pre_l)   dW1_l += dpre_lᵀ·x   dW_in += dhidᵀ·drop(x)   dw_out += dGᵀ·hidden   and the biases.
// dx gathers in fp32: each product adds to what stands, the last one rounds to dx's type. Skipped: only the gate and
// the shared FFN, and dy does not reach the gate.
#include "cpu/ffn.h"
#include "cpu/isa.h"
#include "cpu/simd/math.h"

namespace dw {
namespace cpu {
namespace DW_ISA {

namespace {

struct Backward {
  Context& ctx;
  const GatedFfnBackward& f;
  float* g;
  float* dx;  // fp32 [R, D], what has been gathered so far

  // dG of every row of the language, and u when the expert ran.
  void rows(const Expert& e, float* dgate, Block u) const {
    const int64_t first = e.begin, m = e.rows(), d = f.width;
    const float budget = f.dgate ? f.dgate.as<float>()[0] : 0.0f;
    const Dropout drop(f.draws.of_expert());
    Workspace::Frame frame(ctx.workspace);
    float* keep = frame.take<float>(ctx.threads() * d);
    with_type(f.dy.dtype, [&](auto* tdy) {
      with_type(f.delta.dtype, [&](auto* td) {
        with_type(u.type, [&](auto* tu) {
          const auto* y = static_cast<decltype(tdy)>(f.dy.data) + first * d;
          const auto* dl = static_cast<decltype(td)>(f.delta.data) + e.saved * d;
          auto* to = static_cast<decltype(tu)>(u.data);
          each_piece(ctx, m, [&](int64_t t, int64_t begin, int64_t end) {
            float* k = keep + t * d;
            for (int64_t i = 0; i < d; i++) k[i] = 1;
            for (int64_t r = begin; r < end; r++) {
              const float gr = g[first + r], share = gate_share(gr, f.draws.straight);
              float sum = budget;
              if (to) {
                if (drop.any()) drop.fill(k, (first + r) * d, d);
                float along = 0;
                for (int64_t i = 0; i < d; i++) {
                  const float v = get(y, r * d + i);
                  along += v * get(dl, r * d + i);
                  put(to, r * d + i, share * k[i] * v);
                }
                sum += along;
              }
              dgate[r] = gr * (1 - gr) * sum;
            }
          });
        });
      });
    });
  }

  void gate(const Expert& e, const ExpertGradients& gradients, const float* dgate) const {
    Workspace::Frame frame(ctx.workspace);
    const int64_t first = e.begin, m = e.rows(), h = f.gate, d = f.width;
    const float* hidden = f.gate_hidden.as<float>() + e.saved * h;
    const float* w = bias_of(frame, e.gate_out);
    const Block dhid = scratch(frame, DType::f32, m, h);
    float* dh = static_cast<float*>(dhid.data);
    if (gradients.gate_out) {
      float* to = gradients.gate_out.as<float>();
      for (int64_t r = 0; r < m; r++)
        for (int64_t i = 0; i < h; i++) to[i] += dgate[r] * hidden[r * h + i];
    }
    for (int64_t r = 0; r < m; r++)
      for (int64_t i = 0; i < h; i++) dh[r * h + i] = hidden[r * h + i] > 0 ? dgate[r] * w[i] : 0.0f;
    bias_gradient(ctx, gradients.gate_in_bias, m, dhid);
    const Dropout drop(f.draws.of_gate());
    if (gradients.gate_in) {
      const Block x = dropped_rows(ctx, frame, f.x, first, m, drop);
      gemm(ctx, weight_gradient(gradients.gate_in, m, dhid, x, DType::f32));
    }
    float* to = dx + first * d;
    gemm(ctx, times(e.gate_in, m, dhid, {to, DType::f32, d}, DType::f32));
    if (!drop.any()) return;
    float* keep = frame.take<float>(ctx.threads() * d);
    each_piece(ctx, m, [&](int64_t t, int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; r++) {
        drop.fill(keep + t * d, (first + r) * d, d);
        for (int64_t i = 0; i < d; i++) to[r * d + i] *= keep[t * d + i];
      }
    });
  }

  // dpre = gelu'(pre) ⊙ (d·W2) [· row scale]
  Block through(Workspace::Frame& frame, const Weight& fc2, int64_t m, Block d, Block pre,
                const float* row_scale) const {
    const Block dpre = scratch(frame, f.compute, m, f.inner);
    Gemm down = times(fc2, m, d, dpre, f.compute);
    down.epilogue.gelu_of = pre;
    down.epilogue.row_scale = row_scale;
    gemm(ctx, down);
    return dpre;
  }

  void expert(const Expert& e, const ExpertGradients& gradients, Block u) const {
    Workspace::Frame frame(ctx.workspace);
    const int64_t first = e.begin, m = e.rows();
    const Block pre = block_of(f.pre_expert, e.saved), x = block_of(f.x, first);
    const Block dpre = through(frame, e.ffn.fc2, m, u, pre, nullptr);
    Gemm up = times(e.ffn.fc1, m, dpre, {dx + first * f.width, DType::f32, f.width}, f.compute);
    up.epilogue.accumulate = true;
    gemm(ctx, up);
    bias_gradient(ctx, gradients.fc1_bias, m, dpre);
    bias_gradient(ctx, gradients.fc2_bias, m, u);
    if (gradients.fc1) gemm(ctx, weight_gradient(gradients.fc1, m, dpre, x, f.compute));
    if (!gradients.fc2) return;
    const Block act = dpre;  // its last reader is done
    with_type(pre.type, [&](auto* tp) {
      with_type(act.type, [&](auto* ta) {
        ctx.pool.split(m * f.inner, 1 << 14, [&](int64_t begin, int64_t end) {
          const auto* in = static_cast<decltype(tp)>(pre.data);
          auto* to = static_cast<decltype(ta)>(act.data);
          for (int64_t i = begin; i < end; i++) put(to, i, gelu(get(in, i)));
        });
      });
    });
    gemm(ctx, weight_gradient(gradients.fc2, m, u, act, f.compute));
  }
};

}  // namespace

void gated_ffn_backward(Context& ctx, const GatedFfnBackward& f) {
  if (f.rows == 0) return;
  Workspace::Frame frame(ctx.workspace);
  const bool gated = f.covered > 0, experts = gated && !f.draws.skip;
  float* dx = gated ? frame.take<float>(f.rows * f.width) : nullptr;
  const Backward b{ctx, f, f.g.as<float>(), dx};

  if (f.covered < f.rows && gated) std::memset(dx, 0, size_t(f.rows * f.width) * 4);
  for (size_t l = 0; l < f.experts.size(); l++) {
    const Expert& e = f.experts[l];
    const int64_t m = e.rows();
    if (m == 0) continue;
    Workspace::Frame inner(ctx.workspace);
    float* dgate = inner.take<float>(m);
    Block u{nullptr, f.compute, f.width};
    if (experts) u = scratch(inner, f.compute, m, f.width);
    b.rows(e, dgate, u);
    b.gate(e, f.gradients[l], dgate);
    if (experts) b.expert(e, f.gradients[l], u);
  }

  float* scale = nullptr;
  if (experts) {
    scale = frame.take<float>(f.rows);
    for (int64_t r = 0; r < f.rows; r++) scale[r] = 1 - gate_share(b.g[r], f.draws.straight);
  }
  const Block dpre = b.through(frame, f.shared.fc2, f.rows, block_of(f.dy), block_of(f.pre_shared), scale);
  Gemm up = times(f.shared.fc1, f.rows, dpre, block_of(f.dx), f.compute);
  if (gated) up.epilogue.residual = {dx, DType::f32, f.width};
  gemm(ctx, up);
}

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
