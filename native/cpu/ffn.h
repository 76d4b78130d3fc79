// The FFN and the gate, which the gated expert kernels share.
#pragma once
#include "cpu/dropout.h"
#include "cpu/products.h"
#include "cpu/simd/elements.h"
#include "ops/gated_ffn.h"

namespace dw {
namespace cpu {
namespace DW_ISA {

// Splits rows over the team: body(thread, begin, end). Each piece may use a buffer of its own.
template <class Body>
static inline void each_piece(Context& ctx, int64_t rows, const Body& body) {
  const int64_t pieces = rows < ctx.threads() ? rows : ctx.threads();
  ctx.pool.each(pieces, [&](int64_t t) { body(t, rows * t / pieces, rows * (t + 1) / pieces); });
}

// FFN of m rows: act = gelu(x·W1ᵀ + b1), y = act·W2ᵀ + b2 [+ residual]. `pre`, when given, receives the
// pre-activations.
static inline void ffn(Context& ctx, const Ffn& f, int64_t m, Block x, Block y, DType compute, const Block* pre,
                       const Block* residual) {
  Workspace::Frame frame(ctx.workspace);
  const Block act = scratch(frame, compute, m, f.fc1.rows());
  Gemm up = times_transposed(f.fc1, m, x, act, compute);
  up.epilogue.bias = bias_of(frame, f.fc1_bias);
  up.epilogue.gelu = true;
  if (pre) up.epilogue.pre = *pre;
  gemm(ctx, up);
  Gemm down = times_transposed(f.fc2, m, act, y, compute);
  down.epilogue.bias = bias_of(frame, f.fc2_bias);
  if (residual) down.epilogue.residual = *residual;
  gemm(ctx, down);
}

// drop(x) for rows [first, first + m), as fp32; x itself when nothing drops.
static inline Block dropped_rows(Context& ctx, Workspace::Frame& frame, const View& x, int64_t first, int64_t m,
                                 const Dropout& drop) {
  if (!drop.any()) return block_of(x, first);
  const int64_t d = x.cols();
  const Block out = scratch(frame, DType::f32, m, d);
  with_type(x.dtype, [&](auto* type) {
    const auto* in = static_cast<decltype(type)>(x.data) + first * d;
    each_piece(ctx, m, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; r++) {
        float* o = static_cast<float*>(out.data) + r * d;
        drop.fill(o, (first + r) * d, d);
        for (int64_t i = 0; i < d; i++) o[i] *= get(in, r * d + i);
      }
    });
  });
  return out;
}

// relu(W_in·x + b_in) of m rows in fp32, whatever the products' type: a gate near 0 decides, so it must be right.
static inline void gate_hidden(Context& ctx, const Expert& e, int64_t m, Block x, float* hidden) {
  Workspace::Frame frame(ctx.workspace);
  const int64_t width = e.gate_in.rows();
  Gemm g = times_transposed(e.gate_in, m, x, {hidden, DType::f32, width}, DType::f32);
  g.epilogue.bias = bias_of(frame, e.gate_in_bias);
  gemm(ctx, g);
  for (int64_t i = 0; i < m * width; i++) hidden[i] = hidden[i] > 0 || hidden[i] != hidden[i] ? hidden[i] : 0.0f;
}

static inline float dot(const float* a, const float* b, int64_t n) {
  float s = 0;
  for (int64_t i = 0; i < n; i++) s += a[i] * b[i];
  return s;
}

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
