// The product of a few rows with a weight [n, k]: y[r, j] = Σ_p x[r, p] · w[j, p]. The weight is read once, as it is
// stored, and never packed: the time is that of reading it.
#pragma once
#include "cpu/pack.h"

namespace dw {
namespace cpu {
namespace DW_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kDotRows = 8, kDotColumns = 4;

// Four sums of 16 lanes each, as one vector of four.
inline __m128 sums(__m512 a, __m512 b, __m512 c, __m512 d) {
  const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
  const __m512 s = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd))),
                                 _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd))));
  const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(s), _mm512_extractf32x8_ps(s, 1));
  return _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
}

// R rows of x (words, zero beyond k) with columns [j, j + count) of the weight, count ≤ 4. Few rows read a column to
// its end before the next; more take four at once, so that what is loaded of x serves four sums. Memory is fetched
// ahead of its use, in the order of its addresses, also where columns are read side by side: the processor's own
// prefetching ends with a page and loses its way between columns. A sum has one order, whatever R is: what a row gives
// does not depend on the rows beside it.
template <int R, class P>
void dots(const uint32_t* x, int64_t stride, const P& w, int64_t j, int64_t count, int64_t k, float* acc) {
  constexpr int64_t kSize = sizeof *w.data, kStep = 16 * P::kPer;
  constexpr int64_t kLine = 64 / kSize > kStep ? 64 / kSize : kStep;
  constexpr int kTogether = R > 3 ? 4 : kSize == 1 ? 2 : 1;
  const int64_t ahead = R > 3 ? kTogether * w.ld * kSize : kSize == 1 ? 4096 : 2048;
  __m512 c[R][4];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) c[r][v] = _mm512_setzero_ps();
#pragma GCC unroll 4
  for (int v = 0; v < 4; v += kTogether) {
    if (v >= count) break;
    // Columns beyond the last are the last, once more.
    const auto* first = w.data + (j + v) * w.ld;
    int64_t at[kTogether];
#pragma GCC unroll 4
    for (int u = 0; u < kTogether; u++) at[u] = (v + u < count ? u : count - 1 - v) * w.ld;
    auto step = [&](int64_t p, int64_t left) __attribute__((always_inline)) {
      __m512 b[kTogether];
#pragma GCC unroll 4
      for (int u = 0; u < kTogether; u++) b[u] = _mm512_castsi512_ps(P::along16(first + at[u] + p, left));
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        const __m512 a = _mm512_loadu_ps(x + r * stride + p / P::kPer);
#pragma GCC unroll 4
        for (int u = 0; u < kTogether; u++) c[r][v + u] = multiply_add<P::kPer == 2>(a, b[u], c[r][v + u]);
      }
    };
    int64_t p = 0;
    for (; p + kLine <= k; p += kLine) {
#pragma GCC unroll 4
      for (int u = 0; u < kTogether; u++)
        _mm_prefetch(reinterpret_cast<const char*>(first + kTogether * p + u * kLine) + ahead, _MM_HINT_T0);
#pragma GCC unroll 4
      for (int64_t q = 0; q < kLine; q += kStep) step(p + q, kStep);
    }
    for (; p < k; p += kStep) step(p, k - p < kStep ? k - p : kStep);
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) _mm_storeu_ps(acc + r * kGroup, sums(c[r][0], c[r][1], c[r][2], c[r][3]));
}
#else
constexpr int kDotRows = 4, kDotColumns = 1;

template <int R, class P>
void dots(const uint32_t* words, int64_t stride, const P& w, int64_t j, int64_t, int64_t k, float* acc) {
  const float* x = reinterpret_cast<const float*>(words);
  const auto* row = w.data + j * w.ld;
  float s[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  float s0 = 0.0f, s1 = 0.0f, s2 = 0.0f, s3 = 0.0f;
  for (int64_t p = 0; p < k; p++) {
    const float v = P::read(row + p);
    s0 += v * x[p];
    if (R > 1) s1 += v * x[stride + p];
    if (R > 2) s2 += v * x[2 * stride + p];
    if (R > 3) s3 += v * x[3 * stride + p];
  }
  s[0] = s0, s[1] = s1, s[2] = s2, s[3] = s3;
  for (int r = 0; r < R; r++) acc[r * kGroup] = s[r];
}
#endif

// A weight in q8, to `dots` like a packer: its int8 as floats, without their scales.
struct Quantized {
  const int8_t* data;
  int64_t ld;  // bytes from row to row, scale included
  static constexpr int kPer = 1;
#if defined(__AVX512F__)
  static __m512i along16(const int8_t* p, int64_t left) {
    const __mmask16 mask = left >= 16 ? 0xFFFF : __mmask16((1u << left) - 1);
    const __m128i bytes =
        left >= 16 ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)) : _mm_maskz_loadu_epi8(mask, p);
    return _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)));
  }
#else
  static float read(const int8_t* p) { return float(*p); }
#endif
};

#if defined(__AVX512BF16__)
// The same as pairs of bf16, which hold every int8 exactly.
struct QuantizedPairs {
  const int8_t* data;
  int64_t ld;
  static constexpr int kPer = 2;
  static __m512i along16(const int8_t* p, int64_t left) {
    // A float of an int8 has nothing in its lower half: the upper halves are the pairs.
    const __m512i upper = _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29, 27,
                                           25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    return _mm512_permutex2var_epi16(Quantized::along16(p, left), upper,
                                     Quantized::along16(p + 16, left < 16 ? 0 : left - 16));
  }
};
#else
using QuantizedPairs = Quantized;
#endif

template <class P>
void dot_rows(int64_t rows, const uint32_t* x, int64_t stride, const P& w, int64_t j, int64_t count, int64_t k,
              float* acc) {
  switch (rows) {
    case 1:
      return dots<1>(x, stride, w, j, count, k, acc);
    case 2:
      return dots<2>(x, stride, w, j, count, k, acc);
    case 3:
      return dots<3>(x, stride, w, j, count, k, acc);
    case 4:
      return dots<4>(x, stride, w, j, count, k, acc);
#if defined(__AVX512F__)
    case 5:
      return dots<5>(x, stride, w, j, count, k, acc);
    case 6:
      return dots<6>(x, stride, w, j, count, k, acc);
    case 7:
      return dots<7>(x, stride, w, j, count, k, acc);
    default:
      return dots<8>(x, stride, w, j, count, k, acc);
#endif
  }
}

}  // namespace
}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
