// What attention's forward and backward share: vectors, packed operands, one register tile.
// A product is C[m, n] (+)= Σ_u A(m, u) · B[u, n], where a unit u is one fp32 of the contracted dimension (Plain) or a
// pair of bf16 (Pairs, vdpbf16ps). Operands are packed once per (batch, head):
//   rows    [rows][width units]            A, contracted over the head width
//   panels  [rows / kCols][width units][kCols]   B, contracted over the head width: C's columns are the rows
//   stack   [row units][padded width]      B, contracted over the rows: C's columns are the head width
#pragma once
#include "core/op.h"
#include "cpu/math.h"

#if defined(__AVX512F__)
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
  float x = v[0];
  for (int i = 1; i < kLanes; i++) x = v[i] > x ? v[i] : x;
  return x;
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

// exp(x), 0 below the range of fp32.
inline Vec exp_vec(Vec x) {
#if defined(__AVX512F__)
  const __m512 c = _mm512_max_ps(__m512(x), _mm512_set1_ps(-150.0f));
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(c, _mm512_set1_ps(1.44269504f)), 8);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), c);
  r = _mm512_fmadd_ps(n, _mm512_set1_ps(2.12194440e-4f), r);
  __m512 p = _mm512_set1_ps(1.9875691500e-4f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
  p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
  return Vec(_mm512_scalef_ps(p, n));
#else
  float in[kLanes], out[kLanes];
  std::memcpy(in, &x, sizeof x);
  for (int i = 0; i < kLanes; i++) out[i] = fast_exp(in[i]);
  return load_vec(out);
#endif
}

// kLanes floats out of fp32 or bf16 memory.
inline Vec widen(const float* p) { return load_vec(p); }
inline Vec widen(const bf16* p) {
  typedef uint16_t Half __attribute__((vector_size(kLanes * 2)));
  typedef uint32_t Full __attribute__((vector_size(kLanes * 4)));
  Half h;
  std::memcpy(&h, p, sizeof h);
  return Vec(__builtin_convertvector(h, Full) << 16);
}

struct Plain {
  using Unit = float;
  static constexpr int kPer = 1;  // elements in a unit
  static Unit unit(float first, float) { return first; }
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
  static Unit unit(float first, float second) { return to_bf16(first).bits | uint32_t(to_bf16(second).bits) << 16; }
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

// C[rows, columns of the panels] = A · panels, rows a multiple of kRows.
template <class Kind>
void times_panels(int64_t rows, int64_t panels, int64_t depth, const typename Kind::Unit* a, int64_t stride,
                  const typename Kind::Unit* b, float* c, int64_t ldc) {
  for (int64_t p = 0; p < panels; p++)
    for (int64_t r = 0; r < rows; r += kRows)
      tile<Kind, kVectors, kSet, false>(depth, a + r * stride, stride, b + p * depth * kCols, kCols,
                                        c + r * ldc + p * kCols, ldc, nullptr);
}

// C[rows, width] = C · scale + A · stack, rows a multiple of kRows, width of kLanes.
template <class Kind, Mode mode, bool column>
void times_stack(int64_t rows, int64_t width, int64_t depth, const typename Kind::Unit* a, int64_t stride,
                 const typename Kind::Unit* b, float* c, const float* scale) {
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

// One head of a tensor [B, T, D]: `rows` rows of `width` elements, `ld` apart.
template <class T>
struct Head {
  const T* data;
  int64_t ld, rows, width;
  float at(int64_t r, int64_t c) const { return r < rows && c < width ? get(data, r * ld + c) : 0.0f; }
};

// Rows [from, from + count) in A form; rows and columns that do not exist are 0.
template <class Kind, class T>
void pack_rows(const Head<T>& x, int64_t from, int64_t count, int64_t stride, typename Kind::Unit* dst) {
  for (int64_t r = 0; r < count; r++) {
    const int64_t row = from + r;
    const T* p = x.data + row * x.ld;
    typename Kind::Unit* d = dst + r * stride;
    const int64_t whole = row < x.rows ? x.width / Kind::kPer : 0;
    for (int64_t u = 0; u < whole; u++)
      d[u] = Kind::unit(get(p, u * Kind::kPer), get(p, u * Kind::kPer + Kind::kPer - 1));
    for (int64_t u = whole; u < stride; u++)
      d[u] = Kind::unit(x.at(row, u * Kind::kPer), x.at(row, u * Kind::kPer + 1));
  }
}

template <class Kind, class T>
void pack_panels(const Head<T>& x, typename Kind::Unit* dst) {
  const int64_t depth = (x.width + Kind::kPer - 1) / Kind::kPer;
  for (int64_t p = 0; p < x.rows; p += kCols, dst += depth * kCols) {
    if (p + kCols <= x.rows && x.width % Kind::kPer == 0) {
      for (int64_t r = 0; r < kCols; r++) {
        const T* row = x.data + (p + r) * x.ld;
        for (int64_t u = 0; u < depth; u++)
          dst[u * kCols + r] = Kind::unit(get(row, u * Kind::kPer), get(row, u * Kind::kPer + Kind::kPer - 1));
      }
      continue;
    }
    for (int64_t u = 0; u < depth; u++)
      for (int64_t r = 0; r < kCols; r++)
        dst[u * kCols + r] = Kind::unit(x.at(p + r, u * Kind::kPer), x.at(p + r, u * Kind::kPer + 1));
  }
}

template <class Kind, class T>
void pack_stack(const Head<T>& x, typename Kind::Unit* dst) {
  const int64_t padded = round_up(x.width, kLanes);
  for (int64_t r = 0; r < x.rows; r += Kind::kPer, dst += padded) {
    const bool both = r + Kind::kPer <= x.rows;
    const T *first = x.data + r * x.ld, *second = first + (Kind::kPer - 1) * x.ld;
    for (int64_t c = 0; c < x.width; c++) dst[c] = Kind::unit(get(first, c), both ? get(second, c) : 0.0f);
    for (int64_t c = x.width; c < padded; c++) dst[c] = 0;
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
