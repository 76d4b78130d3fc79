// The product of a few rows with a weight [n, k]: y[r, j] = Σ_p x[r, p] · w[j, p]. The weight is read once, as it is
// stored, and never packed: the time is that of reading it.
#pragma once
#include "cpu/gemm/pack.h"

namespace dw {
namespace cpu {
namespace DW_ISA {
namespace {

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

#if defined(__AVX512VNNI__)
// The same as numbers of 16 bits, for rows of such (rows16.h).
struct QuantizedWhole {
  const int8_t* data;
  int64_t ld;
  static constexpr int kPer = 2;
  static __m512i along16(const int8_t* p, int64_t left) {
    const __mmask32 mask = left >= 32 ? 0xFFFFFFFFu : __mmask32((1ull << left) - 1);
    return _mm512_cvtepi8_epi16(left >= 32 ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))
                                           : _mm256_maskz_loadu_epi8(mask, p));
  }
};
#endif

#if defined(__AVX512F__)
constexpr int kDotRows = 8, kDotColumns = 4;

// How sums of 16 lanes grow by words of x and of the weight.
template <class P>
struct Sums {
  using Type = __m512;
  static Type add(Type sum, __m512i x, __m512i w) {
    return multiply_add<P::kPer == 2>(_mm512_castsi512_ps(x), _mm512_castsi512_ps(w), sum);
  }
  static Vec floats(Type sum) { return Vec(sum); }
};
#if defined(__AVX512VNNI__)
template <>
struct Sums<QuantizedWhole> {
  using Type = __m512i;
  static Type add(Type sum, __m512i x, __m512i w) {
    // Of the intrinsic GCC 12 makes copies that take half of the time.
    asm("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x));
    return sum;
  }
  static Vec floats(Type sum) { return Vec(_mm512_cvtepi32_ps(sum)); }
};
#endif

// R rows of x (words, zero beyond k) with columns [j, j + count) of the weight, count ≤ 4. Few rows read a column to
// its end before the next; more take several at once, so that what is loaded of x serves several sums, and as many as
// sums have registers. A sum has one order, whatever R is: what a row gives does not depend on the rows beside it.
// Memory is fetched ahead of its use, in the order of its addresses, also where columns are read side by side, which
// the processor's own prefetching is lost in; with many rows, which fill the nearest cache, into the second. Columns
// read one by one are left to AMD's prefetching (Zen 4: up to a quarter faster so); Intel's ends with every page.
template <int R, class P>
void dots(const uint32_t* x, int64_t stride, const P& w, int64_t j, int64_t count, int64_t k, float* acc) {
  constexpr int64_t kSize = sizeof *w.data, kStep = 16 * P::kPer;
  constexpr int64_t kLine = 64 / kSize > kStep ? 64 / kSize : kStep;
  constexpr int kTogether = R > 6 && kSize != 2 ? 2 : R > 3 ? 4 : 1;
  constexpr int kFetched = R > 3 || !kDot || kAmx ? kTogether : 0;
  constexpr auto kHint = R > 3 && kSize > 1 ? _MM_HINT_T1 : _MM_HINT_T0;
  const int64_t ahead = R > 3 ? kTogether * w.ld * kSize : kSize == 1 ? 4096 : 2048;
  using Sum = Sums<P>;
  typename Sum::Type c[R][4];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) c[r][v] = typename Sum::Type{};
#pragma GCC unroll 4
  for (int v = 0; v < 4; v += kTogether) {
    if (v >= count) break;
    // Columns beyond the last are the last, once more.
    const auto* first = w.data + (j + v) * w.ld;
    int64_t at[kTogether];
#pragma GCC unroll 4
    for (int u = 0; u < kTogether; u++) at[u] = (v + u < count ? u : count - 1 - v) * w.ld;
    auto step = [&](int64_t p, int64_t left) __attribute__((always_inline)) {
      __m512i b[kTogether];
#pragma GCC unroll 4
      for (int u = 0; u < kTogether; u++) b[u] = P::along16(first + at[u] + p, left);
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        const __m512i a = _mm512_loadu_si512(x + r * stride + p / P::kPer);
#pragma GCC unroll 4
        for (int u = 0; u < kTogether; u++) c[r][v + u] = Sum::add(c[r][v + u], a, b[u]);
      }
    };
    int64_t p = 0;
    for (; p + kLine <= k; p += kLine) {
#pragma GCC unroll 4
      for (int u = 0; u < kFetched; u++)
        _mm_prefetch(reinterpret_cast<const char*>(first + kTogether * p + u * kLine) + ahead, kHint);
#pragma GCC unroll 4
      for (int64_t q = 0; q < kLine; q += kStep) step(p + q, kStep);
    }
    for (; p < k; p += kStep) step(p, k - p < kStep ? k - p : kStep);
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) {
    const Vec sums[4] = {Sum::floats(c[r][0]), Sum::floats(c[r][1]), Sum::floats(c[r][2]), Sum::floats(c[r][3])};
    totals(sums, acc + r * kGroup);
  }
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
