// Floats for AMX tiles. x = x0 + x1 + x2 in bf16, each the rest of x rounded: 8 of a float's 24 bits, so that the sum
// is exact (down to bf16's smallest normal number). Then
//   a·b = a2·b0 + a1·b0 + a1·b1 + a0·b1 + a0·b2 + a0·b0 + less than 2⁻²⁵ of |a·b|,
// six products that are exact and are added in fp32: the error is that of multiply-adds of floats. As in Packer, words
// are pairs that are neighbours along k, and what lies beyond the matrix is zero.
#pragma once
#include "cpu/pack.h"

namespace dw {
namespace cpu {
namespace DW_ISA {
namespace {

template <class T>
struct ThirdsPacker {
  const T* data;
  int64_t ld;
  bool along_k;  // stored [outer, k]; otherwise [k, outer]

#if defined(__AMX_BF16__)
  using Floats = Packer<T, false, false>;

  // What part `part` of x is rounded from. Rounding must not make a finite number infinite; infinity and NaN, which are
  // not clamped in the last part, stay what they are.
  static __m512 rest(__m512i u, int part) {
    const __m512 most = _mm512_castsi512_ps(_mm512_set1_epi32(0x7F7F0000));
    const __m512 least = _mm512_castsi512_ps(_mm512_set1_epi32(int(0xFF7F0000u)));
    const auto clamp = [&](__m512 v) { return _mm512_max_ps(least, _mm512_min_ps(most, v)); };
    __m512 x = _mm512_castsi512_ps(u);
    for (int i = 0; i < part; i++) {
      const __m512i rounded = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(clamp(x)));
      x = _mm512_sub_ps(x, _mm512_castsi512_ps(_mm512_slli_epi32(rounded, 16)));
    }
    return part < 2 ? clamp(x) : x;
  }
  static __m512i pairs(__m512i hi, __m512i lo, int part) {
    return (__m512i)_mm512_cvtne2ps_pbh(rest(hi, part), rest(lo, part));
  }
  // 16 words along k from word w, of outer index o.
  __m512i along16(int64_t w, int64_t o, int64_t k, int part) const {
    const T* p = data + o * ld + 2 * w;
    return pairs(Floats::floats16(p + 16, k - 2 * w - 16), Floats::floats16(p, k - 2 * w), part);
  }
  // Word w of 16 outer indices from o.
  __m512i across16(int64_t w, int64_t o, int64_t k, int64_t outer, int part) const {
    const T* p = data + 2 * w * ld + o;
    const bool both = 2 * w + 1 < k;
    const __m512i lo = Floats::floats16(p, outer - o), hi = Floats::floats16(both ? p + ld : p, both ? outer - o : 0);
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, pairs(hi, lo, part));
  }
  // 16 outer indices from o by 16 words from w: a register an outer index, or a register a word.
  void square(__m512i r[16], int64_t w, int64_t o, int64_t k, int64_t outer, int part, bool by_word) const {
    const int64_t words = (k + 1) / 2;
    if (along_k) {
#pragma GCC unroll 16
      for (int i = 0; i < 16; i++) r[i] = o + i < outer ? along16(w, o + i, k, part) : _mm512_setzero_si512();
    } else {
#pragma GCC unroll 16
      for (int i = 0; i < 16; i++) r[i] = w + i < words ? across16(w + i, o, k, outer, part) : _mm512_setzero_si512();
    }
    if (along_k == by_word) Floats::transpose(r);
  }
  void fetch(int64_t w, int64_t o) const {
    for (int i = 0; i < 32; i++)
      Floats::fetch(along_k ? data + (o + i % 16) * ld + 2 * w + i / 16 * 16 : data + (2 * w + i) * ld + o);
  }

  // Left operand: outer indices [o0, o0 + 32) and all words as dst[16 words][part][outer][word].
  void band(uint32_t* dst, int64_t o0, int64_t outer, int64_t k) const {
    for (int64_t w = 0; 2 * w < k; w += 16, dst += 3 * kThirdWords)
      for (int64_t o = 0; o < 32; o += 16) {
        fetch(w + 16, o0 + o);
        for (int part = 0; part < 3; part++) {
          __m512i r[16];
          square(r, w, o0 + o, k, outer, part, false);
#pragma GCC unroll 16
          for (int i = 0; i < 16; i++) _mm512_store_si512(dst + part * kThirdWords + (o + i) * 16, r[i]);
        }
      }
  }

  // Right operand: outer indices [o0, o0 + kGroup) and words [w0, w1), w0 a multiple of 16, as
  // dst[32 outer][16 words][part][word][outer].
  void panels(uint32_t* dst, int64_t o0, int64_t outer, int64_t w0, int64_t w1, int64_t k) const {
    for (int64_t o = o0; o < o0 + kGroup; o += kTileWidth)
      for (int64_t w = w0; w < w1; w += 16, dst += 3 * kThirdWords)
        for (int64_t x = 0; x < kTileWidth; x += 16) {
          fetch(w + 16, o + x);
          for (int part = 0; part < 3; part++) {
            __m512i r[16];
            square(r, w, o + x, k, outer, part, true);
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++) _mm512_store_si512(dst + part * kThirdWords + i * kTileWidth + x, r[i]);
          }
        }
  }
#else
  void band(uint32_t*, int64_t, int64_t, int64_t) const {}
  void panels(uint32_t*, int64_t, int64_t, int64_t, int64_t, int64_t) const {}
#endif
};

// Words of an operand with `outer` indices, in panels or bands, where each has 32.
inline int64_t thirds_words(int64_t outer, int64_t words) {
  return (outer + 31) / 32 * ((words + 15) / 16) * 3 * kThirdWords;
}

// Calls body(packer) for a stored matrix.
template <class Body>
void with_thirds_packer(const void* data, DType type, int64_t ld, bool along_k, const Body& body) {
  with_type(type, [&](auto* t) {
    using U = std::remove_pointer_t<decltype(t)>;
    body(ThirdsPacker<U>{static_cast<const U*>(data), ld, along_k});
  });
}

}  // namespace
}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
