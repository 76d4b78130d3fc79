// Packing: a block of a stored matrix as words (see tile.h), either row-major along k (left operand) or as
// panels [k word][kWidth] (right operand). "Outer" is the index that is not k: m on the left, n on the right. What lies
// beyond the matrix is zero.
#pragma once
#include <type_traits>

#include "cpu/gemm/tile.h"
#include "cpu/simd/elements.h"

namespace dw {
namespace cpu {
namespace DW_ISA {
namespace {

// T: stored type. Pairs: words are pairs of bf16. Round: a float word is rounded to bf16 first (compute = bf16 without
// a dot instruction).
template <class T, bool Pairs, bool Round>
struct Packer {
  const T* data;
  int64_t ld;
  bool along_k;  // stored [outer, k]; otherwise [k, outer]
  static constexpr int kPer = Pairs ? 2 : 1;

#if defined(__AVX512F__)
  static __m512i round16(__m512i u) {
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
    const __mmask16 nan = _mm512_cmp_ps_mask(_mm512_castsi512_ps(u), _mm512_castsi512_ps(u), _CMP_UNORD_Q);
    return _mm512_and_si512(_mm512_mask_or_epi32(up, nan, u, _mm512_set1_epi32(0x400000)),
                            _mm512_set1_epi32(int(0xFFFF0000u)));
  }
  // 16 floats (widened, rounded when Round) from `left` elements at p.
  static __m512i floats16(const T* p, int64_t left) {
    const __mmask16 mask = left >= 16 ? 0xFFFF : __mmask16((1u << (left < 0 ? 0 : left)) - 1);
    __m512i u;
    if (sizeof(T) == 2) {
      u = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p)), 16);
    } else {
      u = _mm512_maskz_loadu_epi32(mask, p);
      if (Round) u = round16(u);
    }
    return u;
  }
  // 16 words along k from `left` elements at p.
  static __m512i along16(const T* p, int64_t left) {
    if (!Pairs) return floats16(p, left);
#if defined(__AVX512BF16__)
    if (sizeof(T) == 2) {
      const __mmask32 mask = left >= 32 ? 0xFFFFFFFFu : __mmask32((1ull << (left < 0 ? 0 : left)) - 1);
      return _mm512_maskz_loadu_epi16(mask, p);
    }
    return (__m512i)_mm512_cvtne2ps_pbh(_mm512_castsi512_ps(floats16(p + 16, left - 16)),
                                        _mm512_castsi512_ps(floats16(p, left)));
#else
    return _mm512_setzero_si512();
#endif
  }
  // 16 bf16 and then 16 others as pairs of one of each.
  static __m512i interleave(__m512i both) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, both);
  }
  // Word `w` along k of 16 outer indices from `o`.
  __m512i across16(int64_t w, int64_t o, [[maybe_unused]] int64_t k, int64_t outer) const {
    if (!Pairs) return floats16(data + w * ld + o, outer - o);
#if defined(__AVX512BF16__)
    const T* p = data + 2 * w * ld + o;
    const int64_t second = 2 * w + 1 < k ? outer - o : 0;
    const T* p1 = 2 * w + 1 < k ? p + ld : p;
    const __m512i lo = floats16(p, outer - o), hi = floats16(p1, second);
    if (sizeof(T) == 2) return _mm512_or_si512(_mm512_srli_epi32(lo, 16), hi);
    const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(_mm512_castsi512_ps(hi), _mm512_castsi512_ps(lo));
    return interleave(both);
#else
    return _mm512_setzero_si512();
#endif
  }
  static void fetch(const T* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0); }

  // Outer rows [o0, o1) as rows of words: dst[(o - o0)·stride + word]; stride ≥ words rounded up to 16.
  void rows(uint32_t* dst, int64_t stride, int64_t o0, int64_t o1, int64_t k) const {
    const int64_t kw = (k + kPer - 1) / kPer;
    if (along_k) {
      for (int64_t o = o0; o < o1; o++)
        for (int64_t w = 0; w < kw; w += 16)
          _mm512_storeu_si512(dst + (o - o0) * stride + w, along16(data + o * ld + w * kPer, k - w * kPer));
      return;
    }
    for (int64_t w = 0; w < kw; w += 16)
      for (int64_t o = o0; o < o1; o += 16) {
        __m512i r[16];
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) r[i] = w + i < kw ? across16(w + i, o, k, o1) : _mm512_setzero_si512();
        for (int i = 0; i < 16 * kPer; i++) fetch(data + ((w + 16) * kPer + i) * ld + o);
        transpose(r);
        const int64_t count = o1 - o < 16 ? o1 - o : 16;
        if (count == 16) {
#pragma GCC unroll 16
          for (int i = 0; i < 16; i++) _mm512_storeu_si512(dst + (o - o0 + i) * stride + w, r[i]);
        } else {
          for (int i = 0; i < count; i++) _mm512_storeu_si512(dst + (o - o0 + i) * stride + w, r[i]);
        }
      }
  }

  // Columns [o0, o0 + kGroup) and words [w0, w1) as panels: dst[panel][word - w0][kWidth].
  void panels(uint32_t* dst, int64_t o0, int64_t outer, int64_t w0, int64_t w1, int64_t k) const {
    constexpr int kColumns = kWidth<Pairs>, kPerPanel = kColumns / 16;
    const auto at = [&](int64_t w, int v) {
      return dst + v / kPerPanel * (w1 - w0) * kColumns + (w - w0) * kColumns + v % kPerPanel * 16;
    };
    if (!along_k) {
      for (int64_t w = w0; w < w1; w++)
        for (int v = 0; v < 4; v++) {
          fetch(data + (w + 16) * kPer * ld + o0 + v * 16);
          if (Pairs) fetch(data + ((w + 16) * kPer + 1) * ld + o0 + v * 16);
          _mm512_storeu_si512(at(w, v), across16(w, o0 + v * 16, k, outer));
        }
      return;
    }
    for (int v = 0; v < 4; v++)
      for (int64_t w = w0; w < w1; w += 16) {
        const int64_t o = o0 + v * 16;
        __m512i r[16];
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++)
          r[i] = o + i < outer ? along16(data + (o + i) * ld + w * kPer, k - w * kPer) : _mm512_setzero_si512();
        for (int i = 0; i < 16; i++) fetch(data + (o + 16 + i) * ld + w * kPer);
        transpose(r);
        uint32_t* to = at(w, v);
        if (w1 - w >= 16) {
#pragma GCC unroll 16
          for (int i = 0; i < 16; i++) _mm512_storeu_si512(to + i * kColumns, r[i]);
        } else {
          for (int i = 0; i < w1 - w; i++) _mm512_storeu_si512(to + i * kColumns, r[i]);
        }
      }
  }
#else
  static float read(const T* p) {
    const float f = to_float(*p);
    return Round && sizeof(T) == 4 ? to_float(to_bf16(f)) : f;
  }
  void rows(uint32_t* words, int64_t stride, int64_t o0, int64_t o1, int64_t k) const {
    float* dst = reinterpret_cast<float*>(words);
    if (along_k) {
      for (int64_t o = o0; o < o1; o++)
        for (int64_t p = 0; p < k; p++) dst[(o - o0) * stride + p] = read(data + o * ld + p);
      return;
    }
    for (int64_t p0 = 0; p0 < k; p0 += 16)
      for (int64_t o = o0; o < o1; o++)
        for (int64_t p = p0; p < (p0 + 16 < k ? p0 + 16 : k); p++) dst[(o - o0) * stride + p] = read(data + p * ld + o);
  }
  void panels(uint32_t* words, int64_t o0, int64_t outer, int64_t w0, int64_t w1, int64_t) const {
    float* dst = reinterpret_cast<float*>(words);
    for (int64_t base = o0; base < o0 + kGroup && base < outer; base += kNR, dst += (w1 - w0) * kNR) {
      const int64_t count = outer - base < kNR ? outer - base : kNR;
      if (count < kNR)
        for (int64_t i = 0; i < (w1 - w0) * kNR; i++) dst[i] = 0.0f;
      if (!along_k) {
        for (int64_t p = w0; p < w1; p++)
          for (int64_t j = 0; j < count; j++) dst[(p - w0) * kNR + j] = read(data + p * ld + base + j);
      } else {
        for (int64_t p0 = w0; p0 < w1; p0 += 16)
          for (int64_t j = 0; j < count; j++)
            for (int64_t p = p0; p < (p0 + 16 < w1 ? p0 + 16 : w1); p++)
              dst[(p - w0) * kNR + j] = read(data + (base + j) * ld + p);
      }
    }
  }
#endif
};

// Calls body(packer) for a stored matrix and the type of the product.
template <class Body>
void with_packer(const void* data, DType type, int64_t ld, bool along_k, DType compute, const Body& body) {
  with_type(type, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    const T* p = static_cast<const T*>(data);
    if (compute == DType::bf16)
      body(Packer<T, kDot, !kDot>{p, ld, along_k});
    else
      body(Packer<T, false, false>{p, ld, along_k});
  });
}

}  // namespace
}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
