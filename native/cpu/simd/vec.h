// A register of floats of the instruction set, as a GCC vector: arithmetic, comparison and ?: work lane by lane.
#pragma once
#include <cstdint>
#include <cstring>

#include "core/tensor.h"
#if defined(__AVX2__)
#include <immintrin.h>
#endif

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
typedef float Vec __attribute__((vector_size(4 * kLanes)));

// Vectors stay in registers: a call would leave them in memory, and the compiler makes one where a file has many uses.
#define DW_INLINE static inline __attribute__((always_inline))

DW_INLINE Vec load_vec(const void* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
DW_INLINE void store_vec(void* p, Vec v) { std::memcpy(p, &v, sizeof v); }
DW_INLINE Vec splat(float x) { return x - Vec{}; }

DW_INLINE Vec max_vec(Vec a, Vec b) {
#if defined(__AVX512F__)
  return Vec(_mm512_max_ps(__m512(a), __m512(b)));
#else
  return a > b ? a : b;
#endif
}
DW_INLINE float largest(Vec v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps(__m512(v));
#else
  float x = v[0];
  for (int i = 1; i < kLanes; i++) x = v[i] > x ? v[i] : x;
  return x;
#endif
}
DW_INLINE float total(Vec v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps(__m512(v));
#else
  float s = 0;
  for (int i = 0; i < kLanes; i++) s += v[i];
  return s;
#endif
}

// The totals of four vectors.
DW_INLINE void totals(const Vec* v, float* s) {
#if defined(__AVX512F__)
  const __m512 a = __m512(v[0]), b = __m512(v[1]), c = __m512(v[2]), d = __m512(v[3]);
  const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
  const __m512 x = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
  const __m256 y = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
  _mm_storeu_ps(s, _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1)));
#else
  for (int i = 0; i < 4; i++) s[i] = total(v[i]);
#endif
}

// kLanes floats out of memory of fp32, bf16 or int8.
DW_INLINE Vec widen(const float* p) { return load_vec(p); }
DW_INLINE Vec widen(const bf16* p) {
#if defined(__AVX512F__)
  return Vec(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16));
#elif defined(__AVX2__)
  return Vec(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16));
#else
  Vec v;
  for (int i = 0; i < kLanes; i++) v[i] = to_float(p[i]);
  return v;
#endif
}
DW_INLINE Vec widen(const int8_t* p) {
#if defined(__AVX512F__)
  return Vec(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))));
#elif defined(__AVX2__)
  return Vec(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))));
#else
  Vec v;
  for (int i = 0; i < kLanes; i++) v[i] = float(p[i]);
  return v;
#endif
}

#if defined(__AVX512F__)
// 16 × 16 words: r[j][i] becomes r[i][j].
DW_INLINE void transpose(__m512i r[16]) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xDD);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xDD);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xDD);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xDD);
  }
}
#endif

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
