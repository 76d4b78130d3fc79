// Elementary functions in plain arithmetic that the compiler vectorises for each instruction set.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/tensor.h"

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

// v·2^n for a whole n, by adding to the exponent: v·2^n must be a normal number or just overflow to infinity.
static inline float scale_by_power(float v, float n) {
  uint32_t u;
  std::memcpy(&u, &v, 4);
  u += uint32_t(int32_t(n)) << 23;
  std::memcpy(&v, &u, 4);
  return v;
}

// exp(x): relative error under 2e-7; 0 below -87.3, +inf above 88.7. Cephes' range reduction and polynomial.
static inline float fast_exp(float x) {
  const float clamped = x < -87.3365f ? -87.3365f : (x > 88.7228f ? 88.7228f : x);
  const float n = std::floor(clamped * 1.44269504f + 0.5f);
  const float r = DW_IN_ORDER(clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const float y = scale_by_power(p, n);
  return x < -87.3365f ? 0.0f : (x > 88.7228f ? INFINITY : (x == x ? y : x));
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
static inline float gelu_grad(float x) { return normal_cdf(x) + x * 0.39894228f * fast_exp(-0.5f * x * x); }

static inline float sigmoid(float x) { return 1.0f / (1.0f + fast_exp(-x)); }

static inline float get(const float* p, int64_t i) { return p[i]; }
static inline float get(const bf16* p, int64_t i) { return to_float(p[i]); }
static inline float get(const int8_t* p, int64_t i) { return float(p[i]); }
static inline void put(float* p, int64_t i, float v) { p[i] = v; }
static inline void put(bf16* p, int64_t i, float v) { p[i] = to_bf16(v); }

// max |x|. Sizes compare like their bits, and so do infinities and NaN behind them.
template <class T>
static inline float largest_size(const T* x, int64_t count) {
  int32_t top = 0;
  for (int64_t i = 0; i < count; i++) {
    const float v = get(x, i);
    int32_t bits;
    std::memcpy(&bits, &v, sizeof bits);
    bits &= 0x7FFFFFFF;
    top = bits > top ? bits : top;
  }
  float size;
  std::memcpy(&size, &top, sizeof size);
  return size;
}

// Calls body(typed pointer) for the float type of a view.
template <class Body>
static inline void with_type(DType t, const Body& body) {
  if (t == DType::bf16)
    body(static_cast<bf16*>(nullptr));
  else
    body(static_cast<float*>(nullptr));
}

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
