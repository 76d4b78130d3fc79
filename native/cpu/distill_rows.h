// The element-wise passes of the distillation loss over a slab of tokens × rows. Logits stand transposed, [token][row], so
// that a vector's lanes are rows: maxima and sums need no reduction across lanes. A slab keeps e = exp((s - max) / base),
// max over the slab alone, so that slabs are independent of each other and of the number of threads.
#pragma once
#include "cpu/math.h"

namespace dw {
namespace cpu {
namespace DW_ISA {
namespace {

// exp(x) for x ≤ 0 (NaN stays NaN), 0 below -87.3.
inline float exp_down(float x) {
  const float c = x < -87.33f ? -87.33f : x;
  const float n = std::floor(c * 1.44269504f + 0.5f);
  const float r = c - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const int32_t bits = (int32_t(n) + 127) << 23;
  float s;
  std::memcpy(&s, &bits, 4);
  return x < -87.33f ? 0.0f : p * s;
}

// log(x) for finite x ≥ the smallest normal number (Cephes' polynomial); smaller ones count as that.
inline float log_of(float x) {
  const float c = x < 1.17549435e-38f ? 1.17549435e-38f : x;
  int32_t bits;
  std::memcpy(&bits, &c, 4);
  // m in [sqrt(1/2), sqrt(2))
  const int32_t e = (bits - 0x3F3504F3) >> 23;
  const int32_t mantissa = bits - (e << 23);
  float m;
  std::memcpy(&m, &mantissa, 4);
  const float f = m - 1.0f, z = f * f, n = float(e);
  float p = 7.0376836292e-2f;
  p = p * f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  p = p * f * z + n * -2.12194440e-4f - 0.5f * z;
  const float y = f + p + n * 0.693359375f;
  return x == x ? y : x;
}

// e raised to a power ≥ 1; 0 stays 0.
inline float power(float e, float exponent) { return e > 0 || e != e ? exp_down(exponent * log_of(e)) : 0.0f; }

// What the passes share: n rows, their temperature, and the base at which the student's e are kept: max(1, temperature),
// the flatter of the two, so that the sharper one is a power of it and underflows only where it may.
struct Temperature {
  float tau, base;
  bool one() const { return tau == 1.0f; }
  // e → e at temperature 1 and at tau, as exponents (1: as it stands).
  float to_one() const { return base; }
  float to_tau() const { return base / tau; }
};

// Sums of one slab, each [n].
struct SlabSums {
  float *max_s, *max_t, *z_one, *z_tau, *z_t, *sum, *dot;
};

inline void column_max(const float* x, int64_t tokens, int64_t n, float* max) {
  for (int64_t r = 0; r < n; r++) max[r] = x[r];
  for (int64_t v = 1; v < tokens; v++)
    for (int64_t r = 0; r < n; r++) max[r] = x[v * n + r] > max[r] ? x[v * n + r] : max[r];
}

// Pass 1. s and t are fp32 logits [tokens][n], t may be null; es and et, which may be the same memory, receive e.
// dot = Σ e_t·((t - max_t) - (s - max_s)).
template <class E, bool kOne>
void slab_sums(const float* s, const float* t, E* es, E* et, int64_t tokens, int64_t n, Temperature at, SlabSums q) {
  column_max(s, tokens, n, q.max_s);
  if (t) column_max(t, tokens, n, q.max_t);
  for (int64_t r = 0; r < n; r++) q.z_one[r] = q.z_tau[r] = q.z_t[r] = q.sum[r] = q.dot[r] = 0;
  const float inverse = 1.0f / at.tau;
  const bool sharp = at.tau < 1;
  for (int64_t v = 0; v < tokens; v++) {
    const float* sv = s + v * n;
    const float* tv = t ? t + v * n : nullptr;
    E* ev = es + v * n;
    if (t) {
      E* fv = et + v * n;
#pragma GCC ivdep
      for (int64_t r = 0; r < n; r++) {
        const float y = tv[r] - q.max_t[r], e = exp_down(y * inverse);
        q.z_t[r] += e;
        q.dot[r] += e * (y - (sv[r] - q.max_s[r]));
        put(fv, r, e);
      }
    }
#pragma GCC ivdep
    for (int64_t r = 0; r < n; r++) {
      const float x = sv[r], y = x - q.max_s[r], e = exp_down(y);
      q.sum[r] += x;
      q.z_one[r] += e;
      if (kOne) {
        put(ev, r, e);
      } else {
        const float f = exp_down(y * inverse);
        q.z_tau[r] += f;
        put(ev, r, sharp ? e : f);
      }
    }
  }
  if (kOne)
    for (int64_t r = 0; r < n; r++) q.z_tau[r] = q.z_one[r];
}

// Pass 2 of JS: kd[r] = Σ pt·log(pt/m) + ps·log(ps/m), inner[r] = Σ w, w = ½ps·(log(ps/m) + epsilon/m), which replaces
// e_t. scale_*[r] turns this slab's e into probabilities.
template <class E, bool kOne>
void slab_js(const E* es, E* et, int64_t tokens, int64_t n, Temperature at, const float* scale_s, const float* scale_t,
             float epsilon, float* kd, float* inner) {
  for (int64_t r = 0; r < n; r++) kd[r] = inner[r] = 0;
  for (int64_t v = 0; v < tokens; v++) {
    const E* ev = es + v * n;
    E* fv = et + v * n;
#pragma GCC ivdep
    for (int64_t r = 0; r < n; r++) {
      float ps = get(ev, r);
      if (!kOne) ps = power(ps, at.to_tau());
      ps *= scale_s[r];
      const float pt = get(fv, r) * scale_t[r];
      const float m = 0.5f * (ps + pt) + epsilon;
      // Below the smallest normal number a probability adds nothing, and its log is not needed.
      const float over = 1.0f / (m < 1.17549435e-38f ? 1.17549435e-38f : m);
      const float a = log_of(ps * over), b = log_of(pt * over);
      const float w = 0.5f * ps * (a + epsilon * over);
      kd[r] += pt * b + ps * a;
      inner[r] += w;
      put(fv, r, w);
    }
  }
}

// Pass 3: d[token][r] = one[r]·p_1 + tau[r]·p_tau + other[r]·(e_t, or JS's w) - less[r]; one and tau hold the scale.
template <class E, bool kOne>
void slab_gradient(const E* es, const E* et, E* d, int64_t tokens, int64_t n, Temperature at, const float* one,
                   const float* tau, const float* other, const float* less) {
  for (int64_t v = 0; v < tokens; v++) {
    const E* ev = es + v * n;
    const E* fv = et ? et + v * n : nullptr;
    E* dv = d + v * n;
    if (!et) {
#pragma GCC ivdep
      for (int64_t r = 0; r < n; r++) {
        const float e = get(ev, r);
        put(dv, r, one[r] * (kOne ? e : power(e, at.to_one())) - less[r]);
      }
      continue;
    }
#pragma GCC ivdep
    for (int64_t r = 0; r < n; r++) {
      const float e = get(ev, r), rest = other[r] * get(fv, r) - less[r];
      put(dv, r, kOne ? (one[r] + tau[r]) * e + rest
                      : one[r] * power(e, at.to_one()) + tau[r] * power(e, at.to_tau()) + rest);
    }
  }
}

}  // namespace
}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
