// The rows that meet a weight in q8 where products run in bf16: numbers of 16 bits. Of a row x [k]
//   X = round(x / s), s = max |x| / 32512                                x ≈ s·X
// A row whose largest is under 2^-100 is zero; one that is not finite has s = NaN. With instructions for it, X meets
// int8 in whole numbers, which is exact; else the rows are floats, s·X.
#pragma once
#include <cmath>

#include "cpu/gemm/pack.h"

namespace dw {
namespace cpu {
namespace DW_ISA {
namespace {

constexpr float kLargest16 = 32512.0f, kLeast16 = 0x1p-100f;

// s, and what x is multiplied by to give X.
template <class T>
float scale16(const T* x, int64_t k, float& inverse) {
  const float largest = largest_size(x, k);
  inverse = largest < kLeast16 || !std::isfinite(largest) ? 0.0f : kLargest16 / largest;
  return std::isfinite(largest) ? largest / kLargest16 : NAN;
}

// s·X.
template <class T>
void rounded16(const T* x, int64_t k, float* y) {
  float inverse;
  const float scale = scale16(x, k, inverse);
  for (int64_t p = 0; p < k; p++) y[p] = inverse > 0 ? std::nearbyint(get(x, p) * inverse) * scale : scale * 0.0f;
}

#if defined(__AVX512VNNI__)
// A sixteenth of more products, 32512·127 each, might leave 32 bits.
constexpr int64_t kMostWhole = 8192;

// X, zero up to a multiple of 32; returns s.
template <class T>
float whole16(const T* x, int64_t k, int16_t* to) {
  float inverse;
  const float scale = scale16(x, k, inverse);
  for (int64_t p = 0; p < (k + 31) / 32 * 32; p += 16) {
    const __m512 v = _mm512_castsi512_ps(Packer<T, false, false>::floats16(x + p, k - p));
    const __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(v, _mm512_set1_ps(inverse)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + p),
                        inverse > 0 ? _mm512_cvtepi32_epi16(whole) : _mm256_setzero_si256());
  }
  return scale;
}
#endif

}  // namespace
}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
