// A register of floats of the instruction set, as a GCC vector: arithmetic, comparison and ?: work lane by lane.
#pragma once
#include <cstdint>
#include <cstring>

namespace dw {
namespace cpu {
namespace DW_ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
typedef float Lanes __attribute__((vector_size(4 * kLanes)));

static inline Lanes load_lanes(const float* p) {
  Lanes v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
static inline void store_lanes(float* p, Lanes v) { std::memcpy(p, &v, sizeof v); }
static inline float sum_of(Lanes v) {
  float s = 0;
  for (int l = 0; l < kLanes; l++) s += v[l];
  return s;
}
static inline float max_of(Lanes v) {
  float m = v[0];
  for (int l = 1; l < kLanes; l++) m = v[l] > m ? v[l] : m;
  return m;
}

// log(x) of a normal positive x: relative error under 2e-7, also near 1. Cephes' polynomial.
static inline float fast_log(float x) {
  int32_t bits;
  std::memcpy(&bits, &x, 4);
  bits -= 0x3F3504F3;  // √½: the mantissa is taken from [√½, √2)
  const float e = float(bits >> 23);
  const int32_t mantissa = (bits & 0x7FFFFF) + 0x3F3504F3;
  float f;
  std::memcpy(&f, &mantissa, 4);
  f -= 1.0f;
  float p = 7.0376836292e-2f;
  p = p * f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  const float z = f * f;
  return f + (p * f * z - 0.5f * z) + e * 0.69314718f;
}

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
