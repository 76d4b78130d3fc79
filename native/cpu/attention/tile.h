// What attention's forward and backward share: vectors, packed operands, one register tile.
// A product is C[m, n] (+)= Σ_u A(m, u) · B[u, n], where a unit u is one fp32 of the contracted dimension (Plain) or a
// pair of bf16 (Pairs, vdpbf16ps). Operands are packed once per (batch, head):
//   rows    [rows][width units]            A, contracted over the head width
//   panels  [rows / kCols][width units][kCols]   B, contracted over the head width: C's columns are the rows
//   stack   [row units][padded width]      B, contracted over the rows: C's columns are the head width
// pack.h packs them.
#pragma once
#include "core/context.h"
#include "cpu/simd/amx.h"
#include "cpu/simd/elements.h"
#include "cpu/simd/math.h"
#include "cpu/simd/vec.h"

namespace dw {
namespace cpu {
namespace DW_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kVectors = 4;
#else
constexpr int kVectors = 2;
#endif
constexpr int kRows = 6;                  // of the register tile
constexpr int kCols = kVectors * kLanes;  // of the register tile, and of a panel
typedef uint32_t __attribute__((may_alias)) Word;

constexpr int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

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
  __m512i r[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) r[i] = _mm512_loadu_si512(from + i * from_bytes);
  transpose(r);
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) _mm512_storeu_si512(to + i * to_bytes, r[i]);
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
