// Elementary functions of floats, in plain arithmetic that the compiler vectorises for each instruction set, and 2^x of a
// register. exp has one polynomial (exp_of_rest) and so has log (log_of_rest); the functions around them differ in what
// numbers they take.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "cpu/simd/vec.h"

// The value of an expression, not to be merged with what surrounds it (-fassociative-math would: n·c1 + n·c2 = n·(c1 +
// c2)).
#if defined(__has_builtin)
#if __has_builtin(__builtin_assoc_barrier)
#define DW_IN_ORDER(x) __builtin_assoc_barrier(x)
#elif __has_builtin(__arithmetic_fence)
#define DW_IN_ORDER(x) __arithmetic_fence(x)
#endif
#endif
#ifndef DW_IN_ORDER
#define DW_IN_ORDER(x) (x)
#endif

namespace dw {
namespace cpu {
namespace DW_ISA {

constexpr float kLog2E = 1.44269504f;

// v·2^n for a whole n, by adding to the exponent: v·2^n must be a normal number or just overflow to infinity.
static inline float scale_by_power(float v, float n) {
  uint32_t u;
  std::memcpy(&u, &v, 4);
  u += uint32_t(int32_t(n)) << 23;
  std::memcpy(&v, &u, 4);
  return v;
}

// exp(x) = 2^n · exp(r), |r| ≤ ln(2) / 2: this is exp(r), by Cephes' polynomial.
static inline float exp_of_rest(float r) {
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  return p * r * r + r + 1.0f;
}

// exp(x): relative error under 2e-7; 0 below -87.3, +inf above 88.7.
static inline float exp_of(float x) {
  const float clamped = x < -87.3365f ? -87.3365f : (x > 88.7228f ? 88.7228f : x);
  const float n = std::floor(clamped * kLog2E + 0.5f);
  const float r = DW_IN_ORDER(clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  const float y = scale_by_power(exp_of_rest(r), n);
  return x < -87.3365f ? 0.0f : (x > 88.7228f ? INFINITY : (x == x ? y : x));
}

// exp(x) for x ≤ 0, where a clamp is all that the ends take; NaN stays NaN. `end`: 2⁻¹²⁷ has no exponent bits, so that
// from -88 down the result is 0.
static inline float exp_down(float x, float end = -88.0f) {
  const float c = x < end ? end : x;
  const float n = std::floor(c * kLog2E + 0.5f);
  const float r = c - n * 0.693359375f + n * 2.12194440e-4f;
  const float p = exp_of_rest(r);
  const uint32_t bits = uint32_t(int32_t(n) + 127) << 23;  // of NaN's n whatever comes: p is NaN
  float s;
  std::memcpy(&s, &bits, 4);
  return p * s;
}

// 2^x of a register, = 2^n · 2^f, |f| ≤ 1/2; 0 below the normal range of fp32, +inf above. 2^f by a polynomial of
// degree 6 (relative error 1.9e-9) or, where the result is rounded to bf16, of degree 4 (2.8e-6).
template <int degree = 6>
static inline Vec exp2_vec(Vec x) {
#if defined(__AVX512F__)
  const Vec f = Vec(_mm512_reduce_ps(__m512(x), 8)), n = x - f;
#else
  typedef int32_t Int __attribute__((vector_size(kLanes * 4)));
  Vec c = x > splat(-126.0f) ? x : splat(-126.0f);
  c = c < splat(128.0f) ? c : splat(128.0f);
  const Int whole = __builtin_convertvector(c - (c < Vec{} ? splat(0.5f) : splat(-0.5f)), Int);
  const Vec f = c - __builtin_convertvector(whole, Vec);
#endif
  Vec p;
  if (degree == 4) {
    p = splat(9.58285e-3f);
    p = p * f + splat(5.590642e-2f);
    p = p * f + splat(2.4024099e-1f);
    p = p * f + splat(6.9312419e-1f);
  } else {
    p = splat(1.5345810711e-4f);
    p = p * f + splat(1.3399930904e-3f);
    p = p * f + splat(9.6184890717e-3f);
    p = p * f + splat(5.5503286421e-2f);
    p = p * f + splat(2.4022646248e-1f);
    p = p * f + splat(6.9314718246e-1f);
  }
  p = p * f + splat(1.0f);
#if defined(__AVX512F__)
  return Vec(_mm512_scalef_ps(__m512(p), __m512(n)));
#else
  // Two factors: 2^128 is not a number of fp32.
  const Int half = whole >> 1;
  const Vec y = p * Vec((half + 127) << 23) * Vec((whole - half + 127) << 23);
  return x > splat(-126.0f) ? (x < splat(128.0f) ? y : splat(INFINITY)) : (x == x ? Vec{} : x);
#endif
}

// exp(x): relative error under (2 + |x|) · 1e-7, exact at 0. The rounding of x · log2(e) grows with |x|, as that of a
// difference of scores does; such weights are small.
template <int degree = 6>
static inline Vec exp_vec(Vec x) {
  return exp2_vec<degree>(x * splat(kLog2E));
}

// log(x) of x = 2^n · (1 + f), 1 + f in [√½, √2), is n · log(2) + f - ½f² + f³ · p: this is p, by Cephes' polynomial.
static inline float log_of_rest(float f) {
  float p = 7.0376836292e-2f;
  p = p * f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  return p * f + 3.3333331174e-1f;
}

// log(x) of a normal positive x: relative error under 2e-7, also near 1.
static inline float log_of_normal(float x) {
  int32_t bits;
  std::memcpy(&bits, &x, 4);
  bits -= 0x3F3504F3;  // √½
  const float n = float(bits >> 23);
  const int32_t mantissa = (bits & 0x7FFFFF) + 0x3F3504F3;
  float m;
  std::memcpy(&m, &mantissa, 4);
  const float f = m - 1.0f, z = f * f, p = log_of_rest(f);
  return f + (p * f * z - 0.5f * z) + n * 0.69314718f;
}

// log(x) for finite x ≥ the smallest normal number, smaller ones count as that; NaN stays NaN.
static inline float log_of(float x) {
  const float c = x < 1.17549435e-38f ? 1.17549435e-38f : x;
  int32_t bits;
  std::memcpy(&bits, &c, 4);
  // m in [sqrt(1/2), sqrt(2))
  const int32_t e = (bits - 0x3F3504F3) >> 23;
  const int32_t mantissa = bits - e * (1 << 23);
  float m;
  std::memcpy(&m, &mantissa, 4);
  const float f = m - 1.0f, z = f * f, n = float(e);
  float p = log_of_rest(f);
  p = p * f * z + n * -2.12194440e-4f - 0.5f * z;
  const float y = f + p + n * 0.693359375f;
  return x == x ? y : x;
}

// The normal distribution's upper tail, 1 − Φ(t) for t ≥ 0, as 2^(−1 + t·Q(t)); Q is a minimax fit on [0, 5.5].
// Absolute error under 1.2e-7, relative error under 1e-6 to t = 2 and 1e-4 to t = 4. (1 + erf would lose the small
// values.)
static inline float normal_tail(float t) {
  float a = -1.154032816e-06f;
  a = a * t + 1.917847294e-05f;
  a = a * t - 9.113420674e-05f;
  a = a * t - 3.610658168e-04f;
  a = a * t + 7.344388403e-03f;
  a = a * t - 5.267855525e-02f;
  a = a * t - 4.591537416e-01f;
  a = a * t - 1.151110530e+00f;
  a = a * t - 1.0f;
  const float c = a < -125.0f ? -125.0f : a;
  const float n = std::floor(c + 0.5f), r = c - n;
  float p = 1.5353362e-04f;
  p = p * r + 1.3398874e-03f;
  p = p * r + 9.6184373e-03f;
  p = p * r + 5.5503324e-02f;
  p = p * r + 2.4022648e-01f;
  p = p * r + 6.9314718e-01f;
  p = p * r + 1.0f;
  return a < -125.0f ? 0.0f : scale_by_power(p, n);
}

static inline float normal_cdf(float x) {
  const float tail = normal_tail(std::fabs(x));
  return x > 0.0f ? 1.0f - tail : tail;
}

// The exact GELU and its derivative: x·Φ(x) and Φ(x) + x·φ(x).
static inline float gelu(float x) { return x * normal_cdf(x); }
static inline float gelu_grad(float x) { return normal_cdf(x) + x * 0.39894228f * exp_of(-0.5f * x * x); }

static inline float sigmoid(float x) { return 1.0f / (1.0f + exp_of(-x)); }

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
