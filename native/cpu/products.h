// Matrix products as kernels ask for them: a linear layer, forward and back, on rows of tensors. What multiplies is
// gemm/. The scores of attention and the logits of the loss never leave the cache: they have loops of their own
// (attention/tile.h, loss/logits.h).
#pragma once
#include "core/prepare.h"
#include "cpu/gemm/gemm.h"
#include "cpu/simd/elements.h"

namespace dw {
namespace cpu {
namespace DW_ISA {

static inline Block block_of(const View& v, int64_t row = 0) {
  return {static_cast<char*>(v.data) + row * v.cols() * size_of(v.dtype), v.dtype, v.cols()};
}
static inline Block scratch(Workspace::Frame& frame, DType type, int64_t rows, int64_t cols) {
  return {frame.take<char>(rows * cols * size_of(type)), type, cols};
}

// c[m, n] = a[m, k] · b[k, n].
static inline Gemm product(int64_t m, int64_t n, int64_t k, Block a, Block b, Block c, DType compute) {
  Gemm g;
  g.m = m, g.n = n, g.k = k;
  g.a = a, g.b = b, g.c = c;
  g.compute = compute;
  return g;
}

// Where the packed form of a frozen weight is kept; null for a part of one.
static inline Storage* kept(const Weight& w) {
  Storage* s = w.storage;
  return s && s->frozen && s->data == w.data ? s : nullptr;
}

// c[m, n] = a[m, k] · Wᵀ, W stored [n, k].
static inline Gemm times_transposed(const Weight& w, int64_t m, Block a, Block c, DType compute) {
  Gemm g = product(m, w.rows(), w.cols(), a, block_of(w), c, compute);
  g.b_transposed = true;
  g.b_storage = kept(w);
  return g;
}

// c[m, k] = a[m, n] · W, W stored [n, k]: back through a linear layer.
static inline Gemm times(const Weight& w, int64_t m, Block a, Block c, DType compute) {
  Gemm g = product(m, w.cols(), w.rows(), a, block_of(w), c, compute);
  g.b_storage = kept(w);
  return g;
}

// gradient[n, k] += dyᵀ · x over m rows: a linear layer's weight.
static inline Gemm weight_gradient(const View& gradient, int64_t m, Block dy, Block x, DType compute) {
  Gemm g = product(gradient.rows(), gradient.cols(), m, dy, x, block_of(gradient), compute);
  g.a_transposed = true;
  g.epilogue.accumulate = true;
  return g;
}

// gradient[n] += Σ_rows dy[r, n]: a linear layer's bias, where it has one.
static inline void bias_gradient(Context& ctx, const View& gradient, int64_t rows, Block dy) {
  if (!gradient) return;
  constexpr int64_t kColumns = 128;
  const int64_t n = gradient.size();
  with_type(dy.type, [&](auto* type) {
    const auto* __restrict from = static_cast<decltype(type)>(dy.data);
    float* __restrict to = gradient.as<float>();
    ctx.pool.each((n + kColumns - 1) / kColumns, [&](int64_t block) {
      const int64_t j0 = block * kColumns, cols = n - j0 < kColumns ? n - j0 : kColumns;
      float s[kColumns] = {};
      for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < cols; j++) s[j] += get(from, r * dy.ld + j0 + j);
      for (int64_t j = 0; j < cols; j++) to[j0 + j] += s[j];
    });
  });
}

// A bias as fp32, which is what the epilogue takes.
static inline const float* bias_of(Workspace::Frame& frame, const View& v) {
  if (v.dtype == DType::f32) return v.as<float>();
  float* b = frame.take<float>(v.size());
  for (int64_t i = 0; i < v.size(); i++) b[i] = get(v.as<bf16>(), i);
  return b;
}

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
