// Philox-4x32-10 (core/philox.h) on 16 consecutive blocks side by side, in 64-bit lanes: a product reads the lower half
// of its lanes and leaves what the next round needs in both halves.
#pragma once
#include <cstdint>

#include "core/philox.h"
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace dw {
namespace cpu {
namespace DW_ISA {

constexpr int kPhiloxBlocks = 16;

#if defined(__AVX512F__)
struct PhiloxLanes {
  static constexpr int kCount = 8;
  using Vec = __m512i;
  static Vec splat(uint64_t x) { return _mm512_set1_epi64(int64_t(x)); }
  static Vec load(const uint64_t* p) { return _mm512_loadu_si512(p); }
  static void store_lower(uint32_t* p, Vec v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi64_epi32(v));
  }
  static Vec times(Vec a, Vec b) { return _mm512_mul_epu32(a, b); }
  static Vec upper(Vec v) { return _mm512_srli_epi64(v, 32); }
  static Vec both(Vec a, Vec b, Vec c) { return _mm512_ternarylogic_epi64(a, b, c, 0x96); }
};
#elif defined(__AVX2__)
struct PhiloxLanes {
  static constexpr int kCount = 4;
  using Vec = __m256i;
  static Vec splat(uint64_t x) { return _mm256_set1_epi64x(int64_t(x)); }
  static Vec load(const uint64_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static void store_lower(uint32_t* p, Vec v) {
    const __m256i lower = _mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(lower));
  }
  static Vec times(Vec a, Vec b) { return _mm256_mul_epu32(a, b); }
  static Vec upper(Vec v) { return _mm256_srli_epi64(v, 32); }
  static Vec both(Vec a, Vec b, Vec c) { return _mm256_xor_si256(_mm256_xor_si256(a, b), c); }
};
#else
struct PhiloxLanes {
  static constexpr int kCount = 1;
  using Vec = uint64_t;
  static Vec splat(uint64_t x) { return x; }
  static Vec load(const uint64_t* p) { return *p; }
  static void store_lower(uint32_t* p, Vec v) { *p = uint32_t(v); }
  static Vec times(Vec a, Vec b) { return (a & 0xFFFFFFFFu) * b; }
  static Vec upper(Vec v) { return v >> 32; }
  static Vec both(Vec a, Vec b, Vec c) { return a ^ b ^ c; }
};
#endif

// word[w · stride + l] = word w of block first + l, l < 16.
static inline void philox_words(uint64_t first, uint32_t step, uint32_t op, uint64_t seed, uint32_t* word,
                                int64_t stride) {
  using L = PhiloxLanes;
  constexpr int kSets = kPhiloxBlocks / L::kCount;
  L::Vec c0[kSets], c1[kSets], c2[kSets], c3[kSets];
  uint64_t block[kPhiloxBlocks];
  for (int l = 0; l < kPhiloxBlocks; l++) block[l] = first + uint64_t(l);
  for (int s = 0; s < kSets; s++) {
    c0[s] = L::load(block + s * L::kCount);
    c1[s] = L::upper(c0[s]);
    c2[s] = L::splat(step);
    c3[s] = L::splat(op);
  }
  const L::Vec m0 = L::splat(0xD2511F53u), m1 = L::splat(0xCD9E8D57u);
  uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
  for (int round = 0; round < 10; round++) {
    const L::Vec a = L::splat(k0), b = L::splat(k1);
    for (int s = 0; s < kSets; s++) {
      const L::Vec p0 = L::times(c0[s], m0), p1 = L::times(c2[s], m1);
      c0[s] = L::both(L::upper(p1), c1[s], a);
      c2[s] = L::both(L::upper(p0), c3[s], b);
      c1[s] = p1;
      c3[s] = p0;
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  for (int s = 0; s < kSets; s++) {
    L::store_lower(word + s * L::kCount, c0[s]);
    L::store_lower(word + stride + s * L::kCount, c1[s]);
    L::store_lower(word + 2 * stride + s * L::kCount, c2[s]);
    L::store_lower(word + 3 * stride + s * L::kCount, c3[s]);
  }
}

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
