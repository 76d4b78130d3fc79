// The product of a few rows with a weight [n, k]: y[r, j] = Σ_p x[r, p] · w[j, p]. The weight is read once, as it is
// stored, and never packed: the time is that of reading it.
#pragma once
#include "cpu/pack.h"

namespace dw {
namespace cpu {
namespace DW_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kDotRows = 6, kDotColumns = 4;

// Four sums of 16 lanes each, as one vector of four.
inline __m128 sums(__m512 a, __m512 b, __m512 c, __m512 d) {
  const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
  const __m512 s = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd))),
                                 _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd))));
  const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(s), _mm512_extractf32x8_ps(s, 1));
  return _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
}

// R rows of x (words, zero beyond k) with columns [j, j + count) of the weight, count ≤ 4. A column is read to its end
// before the next, and memory is fetched kAhead bytes before it is needed: the processor's own prefetching ends with a
// page, and keeps up with less than half of the memory's rate where a weight is in q8. A sum has one order, whatever R
// is: what a row gives does not depend on the rows beside it.
template <int R, class P>
void dots(const uint32_t* x, int64_t stride, const P& w, int64_t j, int64_t count, int64_t k, float* acc) {
  constexpr int64_t kSize = sizeof *w.data, kStep = 16 * P::kPer, kAhead = kSize == 1 ? 4096 : 2048;
  constexpr int64_t kLine = 64 / kSize > kStep ? 64 / kSize : kStep;
  constexpr int kTogether = kSize == 1 && R <= 3 ? 2 : 1;  // columns, where the latency of a sum would be the bound
  __m512 c[R][4];
#pragma GCC unroll 6
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) c[r][v] = _mm512_setzero_ps();
#pragma GCC unroll 4
  for (int v = 0; v < 4; v += kTogether) {
    if (v >= count) break;
    const auto* row = w.data + (j + v) * w.ld;
    const auto* other = row + (v + 1 < count ? w.ld : 0);
    auto step = [&](int64_t p, int64_t left) __attribute__((always_inline)) {
      const __m512 b = _mm512_castsi512_ps(P::along16(row + p, left));
      const __m512 b1 = kTogether == 2 ? _mm512_castsi512_ps(P::along16(other + p, left)) : b;
#pragma GCC unroll 6
      for (int r = 0; r < R; r++) {
        const __m512 a = _mm512_loadu_ps(x + r * stride + p / P::kPer);
        c[r][v] = multiply_add<P::kPer == 2>(a, b, c[r][v]);
        if (kTogether == 2) c[r][v + 1] = multiply_add<P::kPer == 2>(a, b1, c[r][v + 1]);
      }
    };
    int64_t p = 0;
    for (; p + kLine <= k; p += kLine) {
      _mm_prefetch(reinterpret_cast<const char*>(row + p) + kAhead, _MM_HINT_T0);
      if (kTogether == 2) _mm_prefetch(reinterpret_cast<const char*>(other + p) + kAhead, _MM_HINT_T0);
#pragma GCC unroll 4
      for (int64_t q = 0; q < kLine; q += kStep) step(p + q, kStep);
    }
    for (; p < k; p += kStep) step(p, k - p < kStep ? k - p : kStep);
  }
#pragma GCC unroll 6
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
    default:
      return dots<6>(x, stride, w, j, count, k, acc);
#endif
  }
}

}  // namespace
}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
