// Backward of the gated expert FFN (gated_ffn.cc). With dy [R, D] and the budget's dgate, for a row of language l:
//   dG = g(1 - g)·(⟨dy, delta⟩ + dgate)          u = g·keep ⊙ dy
//   dpre_s = (1 - g)·gelu'(pre_s) ⊙ (dy·W2_s)    dpre_l = gelu'(pre_l) ⊙ (u·W2_l)
//   dx = keep_gate ⊙ (dhid·W_in) + dpre_l·W1_l + dpre_s·W1_s,   dhid = dG·w_out ⊙ 1[hidden > 0]
//   dW2_l += uᵀ·gelu(pre_l)   dW1_l += dpre_lᵀ·x   dW_in += dhidᵀ·drop(x)   dw_out += dGᵀ·hidden   and the biases.
// dx gathers in fp32: each product adds to what stands, the last one rounds to dx's type. Skipped: only the gate and
// the shared FFN, and dy does not reach the gate.
#include "cpu/ffn.h"
#include "cpu/isa.h"

namespace dw {
namespace cpu {
namespace DW_ISA {

namespace {

// to[n] += Σ_rows scale[r]·in[r, n]
template <class T>
void add_columns(Context& ctx, const T* in, int64_t rows, int64_t n, float* to) {
  constexpr int64_t kColumns = 256;
  ctx.pool.each((n + kColumns - 1) / kColumns, [&](int64_t piece) {
    const int64_t begin = piece * kColumns, count = n - begin < kColumns ? n - begin : kColumns;
    float sum[kColumns] = {};
    for (int64_t r = 0; r < rows; r++)
      for (int64_t i = 0; i < count; i++) sum[i] += get(in, r * n + begin + i);
    for (int64_t i = 0; i < count; i++) to[begin + i] += sum[i];
  });
}

void add_columns(Context& ctx, Block b, int64_t rows, const View& to) {
  if (!to) return;
  with_type(b.type,
            [&](auto* type) { add_columns(ctx, static_cast<decltype(type)>(b.data), rows, b.ld, to.as<float>()); });
}

struct Backward {
  Context& ctx;
  const GatedFfn& f;
  DType compute;
  float* g;
  float* dx;  // fp32 [R, D], what has been gathered so far

  const View& dy() const { return f.call.in[0]; }
  const View& gradient(int64_t l, size_t tensor) const { return f.at(f.gradient(l, tensor)); }

  // dG of every row of the language, and u when the expert ran.
  void rows(int64_t l, float* dgate, Block u) const {
    const int64_t first = f.begin(l), m = f.end(l) - first, d = f.width;
    const float budget = f.call.in[1] ? f.call.in[1].as<float>()[0] : 0.0f;
    const View& delta = f.at(f.saved + 4);
    const Dropout drop = expert_dropout(f);
    Workspace::Frame frame(ctx.workspace);
    float* keep = frame.take<float>(ctx.threads() * d);
    with_type(dy().dtype, [&](auto* tdy) {
      with_type(delta.dtype, [&](auto* td) {
        with_type(u.type, [&](auto* tu) {
          const auto* y = static_cast<decltype(tdy)>(dy().data) + first * d;
          const auto* dl = static_cast<decltype(td)>(delta.data) + f.saved_row(l) * d;
          auto* to = static_cast<decltype(tu)>(u.data);
          each_piece(ctx, m, [&](int64_t t, int64_t begin, int64_t end) {
            float* k = keep + t * d;
            for (int64_t i = 0; i < d; i++) k[i] = 1;
            for (int64_t r = begin; r < end; r++) {
              const float gr = g[first + r];
              float sum = budget;
              if (to) {
                if (drop.any()) drop.fill(k, (first + r) * d, d);
                float along = 0;
                for (int64_t i = 0; i < d; i++) {
                  const float v = get(y, r * d + i);
                  along += v * get(dl, r * d + i);
                  put(to, r * d + i, gr * k[i] * v);
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

  void gate(int64_t l, const float* dgate) const {
    Workspace::Frame frame(ctx.workspace);
    const int64_t first = f.begin(l), m = f.end(l) - first, h = f.gate, d = f.width;
    const float* hidden = f.at(f.saved + 1).as<float>() + f.saved_row(l) * h;
    const float* w = bias_of(frame, f.at(f.expert(l, kGateOutW)));
    const Block dhid = scratch(frame, DType::f32, m, h);
    float* dh = static_cast<float*>(dhid.data);
    if (gradient(l, kGateOutW)) {
      float* to = gradient(l, kGateOutW).as<float>();
      for (int64_t r = 0; r < m; r++)
        for (int64_t i = 0; i < h; i++) to[i] += dgate[r] * hidden[r * h + i];
    }
    for (int64_t r = 0; r < m; r++)
      for (int64_t i = 0; i < h; i++) dh[r * h + i] = hidden[r * h + i] > 0 ? dgate[r] * w[i] : 0.0f;
    add_columns(ctx, dhid, m, gradient(l, kGateInB));
    const Dropout drop = gate_dropout(f);
    if (gradient(l, kGateInW)) {
      const Block x = dropped_rows(ctx, frame, f.at(f.x), first, m, drop);
      gemm(ctx, weight_gradient(gradient(l, kGateInW), m, dhid, x, DType::f32));
    }
    float* to = dx + first * d;
    gemm(ctx, times(f.call, f.expert(l, kGateInW), m, dhid, {to, DType::f32, d}, DType::f32));
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
  Block through(Workspace::Frame& frame, size_t fc2, int64_t m, Block d, Block pre, const float* row_scale) const {
    const Block dpre = scratch(frame, compute, m, f.inner);
    Gemm down = times(f.call, fc2, m, d, dpre, compute);
    down.epilogue.gelu_of = pre.data;
    down.epilogue.gelu_of_type = pre.type;
    down.epilogue.gelu_of_ld = pre.ld;
    down.epilogue.row_scale = row_scale;
    gemm(ctx, down);
    return dpre;
  }

  void expert(int64_t l, Block u) const {
    Workspace::Frame frame(ctx.workspace);
    const int64_t first = f.begin(l), m = f.end(l) - first;
    const Block pre = block_of(f.at(f.saved + 3), f.saved_row(l)), x = block_of(f.at(f.x), first);
    const Block dpre = through(frame, f.expert(l, kFc2W), m, u, pre, nullptr);
    Gemm up = times(f.call, f.expert(l, kFc1W), m, dpre, {dx + first * f.width, DType::f32, f.width}, compute);
    up.epilogue.accumulate = true;
    gemm(ctx, up);
    add_columns(ctx, dpre, m, gradient(l, kFc1B));
    add_columns(ctx, u, m, gradient(l, kFc2B));
    if (gradient(l, kFc1W)) gemm(ctx, weight_gradient(gradient(l, kFc1W), m, dpre, x, compute));
    if (!gradient(l, kFc2W)) return;
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
    gemm(ctx, weight_gradient(gradient(l, kFc2W), m, u, act, compute));
  }
};

}  // namespace

void gated_ffn_backward(Context& ctx, const Call& call) {
  const GatedFfn f = gated_ffn_backward_call(call);
  if (f.rows == 0) return;
  const DType compute = DType(call.integer(f.settings + 7));
  Workspace::Frame frame(ctx.workspace);
  const bool gated = f.covered > 0, experts = gated && !f.skip();
  float* dx = gated ? frame.take<float>(f.rows * f.width) : nullptr;
  const Backward b{ctx, f, compute, f.at(f.saved).as<float>(), dx};

  if (f.covered < f.rows && gated) std::memset(dx, 0, size_t(f.rows * f.width) * 4);
  for (int64_t l = 0; l < f.languages; l++) {
    const int64_t m = f.end(l) - f.begin(l);
    if (m == 0) continue;
    Workspace::Frame inner(ctx.workspace);
    float* dgate = inner.take<float>(m);
    Block u{nullptr, compute, f.width};
    if (experts) u = scratch(inner, compute, m, f.width);
    b.rows(l, dgate, u);
    b.gate(l, dgate);
    if (experts) b.expert(l, u);
  }

  float* scale = nullptr;
  if (experts) {
    scale = frame.take<float>(f.rows);
    for (int64_t r = 0; r < f.rows; r++) scale[r] = 1 - b.g[r];
  }
  const Block dpre = b.through(frame, f.shared + 2, f.rows, block_of(b.dy()), block_of(f.at(f.saved + 2)), scale);
  Gemm up = times(call, f.shared, f.rows, dpre, block_of(call.out[0]), compute);
  if (gated) {
    up.epilogue.residual = dx;
    up.epilogue.residual_ld = f.width;
  }
  gemm(ctx, up);
}

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
