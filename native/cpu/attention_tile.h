// What attention's forward and backward share: vectors, packed operands, one register tile.
// A product is C[m, n] (+)= Σ_u A(m, u) · B[u, n], where a unit u is one fp32 of the contracted dimension (Plain) or a
// pair of bf16 (Pairs, vdpbf16ps). Operands are packed once per (batch, head):
//   rows    [rows][width units]            A, contracted over the head width
//   panels  [rows / kCols][width units][kCols]   B, contracted over the head width: C's columns are the rows
//   stack   [row units][padded width]      B, contracted over the rows: C's columns are the head width
// attention_pack.h packs them.
#pragma once
#include "core/context.h"
#include "cpu/amx.h"
#include "cpu/math.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace dw {
namespace cpu {
namespace DW_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16, kVectors = 4;
#elif defined(__AVX2__)
constexpr int kLanes = 8, kVectors = 2;
#else
constexpr int kLanes = 4, kVectors = 2;
#endif
constexpr int kRows = 6;                  // of the register tile
constexpr int kCols = kVectors * kLanes;  // of the register tile, and of a panel
typedef float Vec __attribute__((vector_size(kLanes * 4)));
typedef uint32_t __attribute__((may_alias)) Word;

constexpr int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

inline Vec load_vec(const void* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store_vec(void* p, Vec v) { std::memcpy(p, &v, sizeof v); }
inline Vec splat(float x) { return x - Vec{}; }

inline Vec max_vec(Vec a, Vec b) {
#if defined(__AVX512F__)
  return Vec(_mm512_max_ps(__m512(a), __m512(b)));
#else
  return a > b ? a : b;
#endif
}
inline float largest(Vec v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps(__m512(v));
#else
  float x = v[0];
  for (int i = 1; i < kLanes; i++) x = v[i] > x ? v[i] : x;
  return x;
#endif
}
inline float total(Vec v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps(__m512(v));
#else
  float s = 0;
  for (int i = 0; i < kLanes; i++) s += v[i];
  return s;
#endif
}

// The totals of four vectors.
inline void totals(const Vec* v, float* s) {
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

constexpr float kLog2E = 1.44269504f;

// 2^x = 2^n · 2^f, |f| ≤ 1/2; 0 below the normal range of fp32, +inf above. 2^f by a polynomial of degree 6 (relative
// error 1.9e-9) or, where the result is rounded to bf16, of degree 4 (2.8e-6).
template <int degree = 6>
inline Vec exp2_vec(Vec x) {
#if defined(__AVX512F__)
  const Vec f = Vec(_mm512_reduce_ps(__m512(x), 8)), n = x - f;
#else
  typedef int32_t Int __attribute__((vector_size(kLanes * 4)));
  Vec c = x > splat(-126.0f) ? x : splat(-126.0f);
  c = c < splat(128.0f) ? c : splat(128.0f);
  const Int whole = __builtin_convertvector(c - (c < Vec{} ? splat(0.5f) : splat(-0.5f)), Int);
  const Vec f = c - __builtin_convertvector(whole, Vec);
#endif
  Vec p;
  if (degree == 4) {
    p = splat(9.58285e-3f);
    p = p * f + splat(5.590642e-2f);
    p = p * f + splat(2.4024099e-1f);
    p = p * f + splat(6.9312419e-1f);
  } else {
    p = splat(1.5345810711e-4f);
    p = p * f + splat(1.3399930904e-3f);
    p = p * f + splat(9.6184890717e-3f);
    p = p * f + splat(5.5503286421e-2f);
    p = p * f + splat(2.4022646248e-1f);
    p = p * f + splat(6.9314718246e-1f);
  }
  p = p * f + splat(1.0f);
#if defined(__AVX512F__)
  return Vec(_mm512_scalef_ps(__m512(p), __m512(n)));
#else
  // Two factors: 2^128 is not a number of fp32.
  const Int half = whole >> 1;
  const Vec y = p * Vec((half + 127) << 23) * Vec((whole - half + 127) << 23);
  return x > splat(-126.0f) ? (x < splat(128.0f) ? y : splat(INFINITY)) : (x == x ? Vec{} : x);
#endif
}

// exp(x): relative error under (2 + |x|) · 1e-7, exact at 0. The rounding of x · log2(e) grows with |x|, as that of a
// difference of scores does; such weights are small.
template <int degree = 6>
inline Vec exp_vec(Vec x) {
  return exp2_vec<degree>(x * splat(kLog2E));
}

// kLanes floats out of memory of fp32, bf16 or int8.
inline Vec widen(const float* p) { return load_vec(p); }
inline Vec widen(const bf16* p) {
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

inline Vec widen(const int8_t* p) {
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

struct Plain {
  using Unit = float;
  static constexpr int kPer = 1;  // elements in a unit
  template <class T>
  static Unit unit(T first, T) {
    return to_float(first);
  }
  struct Broadcast {
    Vec v;
    explicit Broadcast(const Unit* a) : v(splat(*a)) {}
  };
  static Vec multiply_add(const Broadcast& a, Vec b, Vec c) { return c + a.v * b; }
};

#if defined(__AVX512BF16__)
struct Pairs {
  using Unit = Word;
  static constexpr int kPer = 2;
  static Unit unit(bf16 first, bf16 second) { return first.bits | uint32_t(second.bits) << 16; }
  static Unit unit(float first, float second) { return unit(to_bf16(first), to_bf16(second)); }
  struct Broadcast {
    __m512i v;
    explicit Broadcast(const Unit* a) : v(_mm512_set1_epi32(int(*a))) {}
  };
  static Vec multiply_add(const Broadcast& a, Vec b, Vec c) {
    return Vec(_mm512_dpbf16_ps(__m512(c), (__m512bh)a.v, (__m512bh)b));
  }
};
#endif

enum Mode { kSet, kAdd, kScaleAdd };  // c = s, c += s, c = c · scale[row] + s

// One register tile: kRows × N vectors. A(m, u) = a[m · row + u · step].
template <class Kind, int N, Mode mode, bool column>
__attribute__((noinline)) void tile(int64_t depth, const typename Kind::Unit* a, int64_t stride,
                                    const typename Kind::Unit* b, int64_t ldb, float* c, int64_t ldc,
                                    const float* scale) {
  Vec sum[kRows][N];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; r++)
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) sum[r][n] = Vec{};
  const int64_t row = column ? 1 : stride, step = column ? stride : 1;
  for (int64_t u = 0; u < depth; u++, a += step, b += ldb) {
    Vec y[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) y[n] = load_vec(b + n * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++) {
      const typename Kind::Broadcast x(a + r * row);
#pragma GCC unroll 4
      for (int n = 0; n < N; n++) sum[r][n] = Kind::multiply_add(x, y[n], sum[r][n]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; r++)
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) {
      float* p = c + r * ldc + n * kLanes;
      if (mode == kSet)
        store_vec(p, sum[r][n]);
      else if (mode == kAdd)
        store_vec(p, load_vec(p) + sum[r][n]);
      else
        store_vec(p, load_vec(p) * splat(scale[r]) + sum[r][n]);
    }
}

#if defined(__AVX512F__)
// 16 × 16 words: to[j][i] = from[i][j].
inline void transpose_words(const char* from, int64_t from_bytes, char* to, int64_t to_bytes) {
  __m512i a[16], b[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_si512(from + i * from_bytes);
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
    a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
    a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
    a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
  }
  // a[4g + c] holds, in its four quarters q, column 4q + c of rows 4g .. 4g + 3.
#pragma GCC unroll 4
  for (int c = 0; c < 4; c++) {
    const __m512i low = _mm512_shuffle_i32x4(a[c], a[4 + c], 0x88), high = _mm512_shuffle_i32x4(a[c], a[4 + c], 0xdd);
    const __m512i low2 = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0x88);
    const __m512i high2 = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0xdd);
    _mm512_storeu_si512(to + c * to_bytes, _mm512_shuffle_i32x4(low, low2, 0x88));
    _mm512_storeu_si512(to + (8 + c) * to_bytes, _mm512_shuffle_i32x4(low, low2, 0xdd));
    _mm512_storeu_si512(to + (4 + c) * to_bytes, _mm512_shuffle_i32x4(high, high2, 0x88));
    _mm512_storeu_si512(to + (12 + c) * to_bytes, _mm512_shuffle_i32x4(high, high2, 0xdd));
  }
}
#endif

#if defined(__AMX_BF16__)
// C[rows, width] += A · stack for A(m, u) = a[m + u · stride]: rows of A are made 32 at a time. Of a and its columns,
// multiples of 16 can be read.
inline void times_columns(Tiles& tiles, int64_t rows, int64_t width, int64_t depth, const Word* a, int64_t stride,
                          const Word* b, float* c) {
  constexpr int64_t kDepth = 64;
  alignas(64) Word turned[32 * kDepth];
  for (int64_t r = 0; r < rows; r += 32)
    for (int64_t u0 = 0; u0 < depth; u0 += kDepth) {
      const int64_t count = rows - r < 32 ? rows - r : 32, words = depth - u0 < kDepth ? depth - u0 : kDepth;
      for (int64_t i = 0; i < count; i += 16)
        for (int64_t u = 0; u < words; u += 16)
          transpose_words(reinterpret_cast<const char*>(a + (u0 + u) * stride + r + i), stride * 4,
                          reinterpret_cast<char*>(turned + i * kDepth + u), kDepth * 4);
      tiles.product(count, width, words, reinterpret_cast<const char*>(turned), kDepth * 4,
                    reinterpret_cast<const char*>(b + u0 * width), width * 4, c + r * width, width * 4, true);
    }
}
#endif

template <class T>
const char* bytes_of(const T* p) {
  return reinterpret_cast<const char*>(p);
}

// C[rows, columns of the panels] = A · panels, rows a multiple of kRows.
template <class Kind>
void times_panels([[maybe_unused]] Tiles& tiles, int64_t rows, int64_t panels, int64_t depth,
                  const typename Kind::Unit* a, int64_t stride, const typename Kind::Unit* b, float* c, int64_t ldc) {
  if constexpr (kAmx && Kind::kPer == 2) {
    for (int64_t p = 0; p < panels; p++)
      tiles.product(rows, kCols, depth, bytes_of(a), stride * 4, bytes_of(b + p * depth * kCols), kCols * 4,
                    c + p * kCols, ldc * 4, false);
    return;
  }
  for (int64_t p = 0; p < panels; p++)
    for (int64_t r = 0; r < rows; r += kRows)
      tile<Kind, kVectors, kSet, false>(depth, a + r * stride, stride, b + p * depth * kCols, kCols,
                                        c + r * ldc + p * kCols, ldc, nullptr);
}

// C[rows, width] = C · scale + A · stack, rows a multiple of kRows, width of kLanes.
template <class Kind, Mode mode, bool column>
void times_stack([[maybe_unused]] Tiles& tiles, int64_t rows, int64_t width, int64_t depth,
                 const typename Kind::Unit* a, int64_t stride, const typename Kind::Unit* b, float* c,
                 const float* scale) {
  if constexpr (kAmx && Kind::kPer == 2) {
    if (mode == kScaleAdd)
      for (int64_t r = 0; r < rows; r++)
        for (int64_t w = 0; w < width; w += kLanes)
          store_vec(c + r * width + w, load_vec(c + r * width + w) * splat(scale[r]));
    if (!column)
      return tiles.product(rows, width, depth, bytes_of(a), stride * 4, bytes_of(b), width * 4, c, width * 4, true);
#if defined(__AMX_BF16__)
    return times_columns(tiles, rows, width, depth, a, stride, b, c);
#endif
  }
  for (int64_t r = 0; r < rows; r += kRows) {
    const typename Kind::Unit* ar = a + r * (column ? 1 : stride);
    const float* sr = scale ? scale + r : nullptr;
    int64_t w = 0;
    for (; w + kCols <= width; w += kCols)
      tile<Kind, kVectors, mode, column>(depth, ar, stride, b + w, width, c + r * width + w, width, sr);
    const int64_t rest = (width - w) / kLanes;
    if (rest == 1) tile<Kind, 1, mode, column>(depth, ar, stride, b + w, width, c + r * width + w, width, sr);
#if defined(__AVX512F__)
    if (rest == 2) tile<Kind, 2, mode, column>(depth, ar, stride, b + w, width, c + r * width + w, width, sr);
    if (rest == 3) tile<Kind, 3, mode, column>(depth, ar, stride, b + w, width, c + r * width + w, width, sr);
#endif
  }
}

// Runs tasks on the team, each thread with a scratch of `words` floats; which thread runs a task changes nothing.
template <class Body>
void with_scratch(Context& ctx, int64_t tasks, int64_t words, const Body& body) {
  if (tasks <= 0) return;
  const int64_t slots = tasks < ctx.threads() ? tasks : ctx.threads();
  Workspace::Frame frame(ctx.workspace);
  words = round_up(words, 16);
  float* scratch = frame.take<float>(slots * words);
  int64_t next = 0;
  ctx.pool.each(slots, [&](int64_t slot) {
    for (;;) {
      const int64_t task = __atomic_fetch_add(&next, int64_t(1), __ATOMIC_RELAXED);
      if (task >= tasks) return;
      body(task, scratch + slot * words);
    }
  });
}

// S[i, n..columns) = -inf: keys that a query does not see.
inline void mask_from(float* s, int64_t n, int64_t columns) {
  for (int64_t j = n < 0 ? 0 : n; j < columns; j++) s[j] = -INFINITY;
}

}  // namespace
}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
