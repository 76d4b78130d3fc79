// Elementary functions in plain arithmetic that the compiler vectorises for each instruction set.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/tensor.h"

namespace dw {
namespace cpu {
namespace DW_ISA {

// exp(x): relative error under 2e-7; 0 below -87.3, +inf above 88.7. Cephes' range reduction and polynomial.
static inline float fast_exp(float x) {
  const float clamped = x < -87.3365f ? -87.3365f : (x > 88.7228f ? 88.7228f : x);
  const float n = std::floor(clamped * 1.44269504f + 0.5f);
  const float r = clamped - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  // 2^n in two factors, so that n = 128 does not overflow before its time.
  const int32_t whole = int32_t(n), half = whole / 2;
  const int32_t b0 = (half + 127) << 23, b1 = (whole - half + 127) << 23;
  float s0, s1;
  std::memcpy(&s0, &b0, 4);
  std::memcpy(&s1, &b1, 4);
  const float y = p * s0 * s1;
  return x < -87.3365f ? 0.0f : (x > 88.7228f ? INFINITY : (x == x ? y : x));
}

// erf(x) to 1.2e-7 absolute: tanh-free rational form, |x| clamped where erf is 1 in fp32 (Eigen's and XLA's fit of the
// same minimax problem have this shape; the coefficients are those published with it).
static inline float fast_erf(float x) {
  const float c = x < -3.8325066f ? -3.8325066f : (x > 3.8325066f ? 3.8325066f : x);
  const float z = c * c;
  float p = 0.00022905065861350646f;
  p = p * z + 0.0034082910107109506f;
  p = p * z + 0.050955695062380861f;
  p = p * z + 0.18520832239976145f;
  p = p * z + 1.128379143519084f;
  float q = -1.1791602954361697e-7f;
  q = q * z + 0.000023547966471313185f;
  q = q * z + 0.0010179625278914885f;
  q = q * z + 0.014070470171167667f;
  q = q * z + 0.11098505178285362f;
  q = q * z + 0.49746925110067538f;
  q = q * z + 1.0f;
  return c * p / q;
}

// The exact GELU and its derivative: x·Φ(x) and Φ(x) + x·φ(x).
static inline float gelu(float x) { return 0.5f * x * (1.0f + fast_erf(x * 0.70710678f)); }
static inline float gelu_grad(float x) {
  return 0.5f * (1.0f + fast_erf(x * 0.70710678f)) + x * 0.39894228f * fast_exp(-0.5f * x * x);
}

static inline float sigmoid(float x) { return 1.0f / (1.0f + fast_exp(-x)); }

static inline float get(const float* p, int64_t i) { return p[i]; }
static inline float get(const bf16* p, int64_t i) { return to_float(p[i]); }
static inline void put(float* p, int64_t i, float v) { p[i] = v; }
static inline void put(bf16* p, int64_t i, float v) { p[i] = to_bf16(v); }

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
