// The element-wise passes of the distillation loss over a slab of tokens × rows. Logits stand transposed, [token][row],
// so that a vector's lanes are rows: maxima and sums need no reduction across lanes. A slab keeps e = exp((s - max) /
// base), max over the slab alone, so that slabs are independent of each other and of the number of threads.
#pragma once
#include "cpu/simd/elements.h"
#include "cpu/simd/math.h"

namespace dw {
namespace cpu {
namespace DW_ISA {
namespace {

// Where exp_down ends. The passes read it as a variable: seeing the constant, the compiler gives the clamped case a
// branch of its own and no longer makes vectors of the loop.
const volatile float kExpEnd = -88.0f;

// e raised to a power ≥ 1 (0 becomes at most the smallest normal number).
inline float power(float e, float exponent, float end = -88.0f) { return exp_down(exponent * log_of(e), end); }

// Stores what a pass keeps. No case for NaN: it keeps one of its own making, and where it might lose a stranger's
// payload the slab's sums are NaN as well.
inline void keep(float* p, int64_t i, float v) { p[i] = v; }
inline void keep(bf16* p, int64_t i, float v) {
  uint32_t u;
  std::memcpy(&u, &v, 4);
  p[i].bits = uint16_t((u + 0x7FFFu + ((u >> 16) & 1u)) >> 16);
}

// What the passes share: n rows, their temperature, and the base at which the student's e are kept: max(1,
// temperature), the flatter of the two, so that the sharper one is a power of it and underflows only where it may.
struct Temperature {
  float tau, base;
  bool one() const { return tau == 1.0f; }
  // e → e at temperature 1 and at tau, as exponents (1: as it stands).
  float to_one() const { return base; }
  float to_tau() const { return base / tau; }
};

// Rows of a slab as a loop bound: kRows of them, or n when kRows is 0. With a fixed number sums stay in registers.
template <int kRows>
inline int64_t rows_of(int64_t n) {
  return kRows ? kRows : n;
}

// Sums of one slab, each [n].
struct SlabSums {
  float *max_s, *max_t, *z_one, *z_tau, *z_t, *sum, *dot;
};

template <int kRows>
void column_max(const float* x, int64_t stride, int64_t tokens, int64_t n, float* max) {
  float m[64];
  for (int64_t r = 0; r < rows_of<kRows>(n); r++) m[r] = x[r];
  for (int64_t v = 1; v < tokens; v++)
    for (int64_t r = 0; r < rows_of<kRows>(n); r++) m[r] = x[v * stride + r] > m[r] ? x[v * stride + r] : m[r];
  for (int64_t r = 0; r < rows_of<kRows>(n); r++) max[r] = m[r];
}

// Pass 1. s and t are fp32 logits [tokens], rows 64 apart; t may be null. es and et [tokens][n] receive e.
// dot = Σ e_t·((t - max_t) - (s - max_s)).
template <class E, bool kOne, int kRows>
void slab_sums(const float* __restrict s, const float* __restrict t, E* __restrict es, E* __restrict et, int64_t tokens,
               int64_t n, Temperature at, SlabSums q) {
  constexpr int64_t kStride = 64;
  column_max<kRows>(s, kStride, tokens, n, q.max_s);
  const float inverse = 1.0f / at.tau, end = kExpEnd;
  const bool sharp = at.tau < 1;
  float ms[64], mt[64], a[64] = {}, b[64] = {}, c[64] = {};
  for (int64_t r = 0; r < rows_of<kRows>(n); r++) ms[r] = q.max_s[r];
  if (t) {
    column_max<kRows>(t, kStride, tokens, n, q.max_t);
    for (int64_t r = 0; r < rows_of<kRows>(n); r++) mt[r] = q.max_t[r];
    for (int64_t v = 0; v < tokens; v++) {
      for (int64_t r = 0; r < rows_of<kRows>(n); r++) {
        const float y = t[v * kStride + r] - mt[r], e = exp_down(y * inverse, end);
        a[r] += e;
        b[r] += e * (y - (s[v * kStride + r] - ms[r]));
        keep(et, v * rows_of<kRows>(n) + r, e);
      }
    }
  }
  for (int64_t r = 0; r < rows_of<kRows>(n); r++) q.z_t[r] = a[r], q.dot[r] = b[r], a[r] = b[r] = 0;
  for (int64_t v = 0; v < tokens; v++) {
    for (int64_t r = 0; r < rows_of<kRows>(n); r++) {
      const float x = s[v * kStride + r], y = x - ms[r], e = exp_down(y, end);
      a[r] += x;
      b[r] += e;
      const float f = kOne ? e : exp_down(y * inverse, end);
      if (!kOne) c[r] += f;
      keep(es, v * rows_of<kRows>(n) + r, sharp ? e : f);
    }
  }
  for (int64_t r = 0; r < rows_of<kRows>(n); r++) q.sum[r] = a[r], q.z_one[r] = b[r], q.z_tau[r] = kOne ? b[r] : c[r];
}

// log(ps/m) and log(pt/m) need 1/m. Below the smallest normal number a probability adds nothing, and its log is not
// needed.
inline float inverse_mean(float ps, float pt, float epsilon) {
  const float m = 0.5f * (ps + pt) + epsilon;
  return 1.0f / (m < 1.17549435e-38f ? 1.17549435e-38f : m);
}

// Pass 2 of JS: kd[r] = Σ pt·log(pt/m) + ps·log(ps/m), inner[r] = Σ ps·a, a = ½(log(ps/m) + epsilon/m).
// scale_*[r] turns this slab's e into probabilities.
template <class E, bool kOne, int kRows>
void slab_js(const E* __restrict es, const E* __restrict et, int64_t tokens, int64_t n, Temperature at,
             const float* scale_s, const float* scale_t, float epsilon, float* kd, float* inner) {
  const float end = kExpEnd;
  float d[64] = {}, along[64] = {}, ss[64], st[64];
  for (int64_t r = 0; r < rows_of<kRows>(n); r++) ss[r] = scale_s[r], st[r] = scale_t[r];
  for (int64_t v = 0; v < tokens; v++) {
    for (int64_t r = 0; r < rows_of<kRows>(n); r++) {
      float ps = get(es, v * rows_of<kRows>(n) + r);
      if (!kOne) ps = power(ps, at.to_tau(), end);
      ps *= ss[r];
      const float pt = get(et, v * rows_of<kRows>(n) + r) * st[r];
      const float over = inverse_mean(ps, pt, epsilon);
      const float la = log_of(ps * over), lb = log_of(pt * over);
      d[r] += pt * lb + ps * la;
      along[r] += 0.5f * ps * (la + epsilon * over);
    }
  }
  for (int64_t r = 0; r < rows_of<kRows>(n); r++) kd[r] = d[r], inner[r] = along[r];
}

// What a row's gradient takes, [64] each: the shares of CE and divergence in the total, the scales that make
// probabilities of e, JS's Σ ps·a, and what every token loses to smoothing.
struct GradientFactors {
  float ce[64], kd[64], scale_one[64], scale_tau[64], scale_t[64], inner[64], less[64];
};

// d total / d logit, kKind as in ops/distill_loss.h. JS takes a again from e: kept in bf16 it would be lost in a - Σ
// ps·a where student and teacher are far apart and a is nearly the same for all tokens.
template <bool kOne, int kKind>
inline float gradient_of(float e, float et, const GradientFactors& q, int64_t r, Temperature at, float epsilon,
                         float end) {
  const float one = q.ce[r] * q.scale_one[r] * (kOne ? e : power(e, at.to_one(), end)) - q.less[r];
  if (kKind == 0) return one;
  const float ps = q.scale_tau[r] * (kOne ? e : power(e, at.to_tau(), end)), pt = q.scale_t[r] * et;
  if (kKind == 2) return one + q.kd[r] * (ps - pt);
  const float over = inverse_mean(ps, pt, epsilon);
  return one + q.kd[r] * ps * (0.5f * (log_of(ps * over) + epsilon * over) - q.inner[r]);
}

// Pass 3; rows of d are `stride` apart.
template <class E, bool kOne, int kRows, int kKind>
void slab_gradient(const E* __restrict es, const E* __restrict et, E* __restrict d, int64_t stride, int64_t tokens,
                   int64_t n, Temperature at, const GradientFactors& q, float epsilon) {
  const float end = kExpEnd;
  for (int64_t v = 0; v < tokens; v++)
    for (int64_t r = 0; r < rows_of<kRows>(n); r++) {
      const int64_t i = v * rows_of<kRows>(n) + r;
      keep(d, v * stride + r, gradient_of<kOne, kKind>(get(es, i), kKind ? get(et, i) : 0.0f, q, r, at, epsilon, end));
    }
}

}  // namespace
}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
