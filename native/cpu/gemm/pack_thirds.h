// Floats for AMX tiles. x = x0 + x1 + x2 in bf16, each the rest of x rounded: 8 of a float's 24 bits, so that the sum
// is exact (down to bf16's smallest normal number). Then
//   a·b = a2·b0 + a1·b0 + a1·b1 + a0·b1 + a0·b2 + a0·b0 + less than 2⁻²⁵ of |a·b|,
// six products that are exact and are added in fp32: the error is that of multiply-adds of floats. As in Packer, words
// are pairs that are neighbours along k, and what lies beyond the matrix is zero.
#pragma once
#include "cpu/gemm/pack.h"

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

  static __m512 widened(__m256i v) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16)); }
  // The parts of 16 + 16 floats, lo first. Rounding must not make a finite number infinite; infinity and NaN, which are
  // not clamped in the last part, stay what they are.
  static void split(__m512i lo, __m512i hi, __m512i parts[3]) {
    const __m512 most = _mm512_castsi512_ps(_mm512_set1_epi32(0x7F7F0000));
    const __m512 least = _mm512_castsi512_ps(_mm512_set1_epi32(int(0xFF7F0000u)));
    const auto clamp = [&](__m512 v) { return _mm512_max_ps(least, _mm512_min_ps(most, v)); };
    __m512 x = _mm512_castsi512_ps(lo), y = _mm512_castsi512_ps(hi);
#pragma GCC unroll 2
    for (int part = 0; part < 2; part++) {
      parts[part] = (__m512i)_mm512_cvtne2ps_pbh(clamp(y), clamp(x));
      x = _mm512_sub_ps(x, widened(_mm512_castsi512_si256(parts[part])));
      y = _mm512_sub_ps(y, widened(_mm512_extracti64x4_epi64(parts[part], 1)));
    }
    parts[2] = (__m512i)_mm512_cvtne2ps_pbh(y, x);
  }
  // 16 words along k from word w, of outer index o.
  void along16(int64_t w, int64_t o, int64_t k, __m512i parts[3]) const {
    const T* p = data + o * ld + 2 * w;
    split(Floats::floats16(p, k - 2 * w), Floats::floats16(p + 16, k - 2 * w - 16), parts);
  }
  // Word w of 16 outer indices from o.
  void across16(int64_t w, int64_t o, int64_t k, int64_t outer, __m512i parts[3]) const {
    const T* p = data + 2 * w * ld + o;
    const bool both = 2 * w + 1 < k;
    const __m512i lo = Floats::floats16(p, outer - o), hi = Floats::floats16(both ? p + ld : p, both ? outer - o : 0);
    split(lo, hi, parts);
#pragma GCC unroll 3
    for (int part = 0; part < 3; part++) parts[part] = Floats::interleave(parts[part]);
  }
  // 16 outer indices from o by 16 words from w as tiles of the three parts: a row an outer index, or a row a word,
  // `stride` words apart.
  void square(uint32_t* dst, int64_t stride, int64_t w, int64_t o, int64_t k, int64_t outer, bool by_word) const {
    const int64_t words = (k + 1) / 2;
    __m512i r[3][16];
    for (int i = 0; i < 16; i++) {
      __m512i parts[3] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
      if (along_k) {
        if (o + i < outer) along16(w, o + i, k, parts);
      } else if (w + i < words) {
        across16(w + i, o, k, outer, parts);
      }
#pragma GCC unroll 3
      for (int part = 0; part < 3; part++) r[part][i] = parts[part];
    }
    for (int part = 0; part < 3; part++, dst += kThirdWords) {
      if (along_k == by_word) transpose(r[part]);
#pragma GCC unroll 16
      for (int i = 0; i < 16; i++) _mm512_store_si512(dst + i * stride, r[part][i]);
    }
  }
  void fetch(int64_t w, int64_t o) const {
    for (int i = 0; i < 32; i++)
      Floats::fetch(along_k ? data + (o + i % 16) * ld + 2 * w + i / 16 * 16 : data + (2 * w + i) * ld + o);
  }

  // Left operand: outer indices [o0, o1), o0 a multiple of 32, and all words as
  // dst[32 outer][16 words][part][outer][word]. What is stored [k, outer] is read in rows of o1 - o0.
  void bands(uint32_t* dst, int64_t o0, int64_t o1, int64_t outer, int64_t k) const {
    const int64_t band = (k + 31) / 32 * 3 * kThirdWords;
    for (int64_t w = 0; 2 * w < k; w += 16)
      for (int64_t o = o0; o < o1; o += 16) {
        fetch(w + 16, o);
        square(dst + (o - o0) / 32 * band + w / 16 * 3 * kThirdWords + o % 32 * 16, 16, w, o, k, outer, false);
      }
  }

  // Right operand: outer indices [o0, o0 + kGroup) and words [w0, w1), w0 a multiple of 16, as
  // dst[32 outer][16 words][part][word][outer].
  void panels(uint32_t* dst, int64_t o0, int64_t outer, int64_t w0, int64_t w1, int64_t k) const {
    const int64_t panel = (w1 - w0 + 15) / 16 * 3 * kThirdWords;
    for (int64_t w = w0; w < w1; w += 16)
      for (int64_t o = 0; o < kGroup; o += 16) {
        fetch(w + 16, o0 + o);
        square(dst + o / 32 * panel + (w - w0) / 16 * 3 * kThirdWords + o % 32, kTileWidth, w, o0 + o, k, outer, true);
      }
  }
#else
  void bands(uint32_t*, int64_t, int64_t, int64_t, int64_t) const {}
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
