// What follows the sum, on a row of it while it lies in the nearest cache. See Epilogue in gemm.h for the order.
#pragma once
#include "cpu/gemm/gemm.h"
#include "cpu/gemm/tile.h"
#include "cpu/simd/elements.h"
#include "cpu/simd/math.h"

namespace dw {
namespace cpu {
namespace DW_ISA {
namespace {

// Calls body with a pointer to element (i, j) of a float matrix, in its type.
template <class Body>
DW_INLINE void at(Block of, int64_t i, int64_t j, const Body& body) {
  if (of.type == DType::bf16)
    body(static_cast<bf16*>(of.data) + i * of.ld + j);
  else
    body(static_cast<float*>(of.data) + i * of.ld + j);
}

#if defined(__AVX512F__)
constexpr bool kStreams = true;
// A line past the caches, from 64 bytes of elements; p is aligned to it. The line need not be read first.
DW_INLINE void stream_line(float* p, const float* s) { _mm512_stream_ps(p, _mm512_loadu_ps(s)); }
DW_INLINE void stream_line(bf16* p, const float* s) {
#if defined(__AVX512BF16__)
  const __m512i v = (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(s + 16), _mm512_loadu_ps(s));
#else
  alignas(64) bf16 line[32];
  for (int x = 0; x < 32; x++) line[x] = to_bf16(s[x]);
  const __m512i v = _mm512_load_si512(line);
#endif
  _mm512_stream_si512(reinterpret_cast<__m512i*>(p), v);
}
DW_INLINE void end_stream() { _mm_sfence(); }
#else
constexpr bool kStreams = false;
template <class T>
DW_INLINE void stream_line(T*, const float*) {}
DW_INLINE void end_stream() {}
#endif

// Whether a matrix goes past the caches: it is too large to be found there by what comes next.
DW_INLINE bool streams(const Gemm& g, Block to) {
  constexpr int64_t kBytes = 4 << 20;
  const int64_t size = size_of(to.type);
  return kStreams && to.data && g.m * g.n * size >= kBytes && to.ld * size % 64 == 0 &&
         reinterpret_cast<uintptr_t>(to.data) % 64 == 0;
}
struct Streamed {
  bool c = false, pre = false;
  // Before another thread may read it.
  void end() const {
    if (c || pre) end_stream();
  }
};

DW_INLINE Streamed streamed_by(const Gemm& g) {
  const Epilogue& e = g.epilogue;
  return {!e.accumulate && streams(g, g.c), streams(g, e.pre)};
}

// Of s to p: whole lines past the caches where `stream` says so. Returns how many were put.
template <class T>
DW_INLINE int64_t stream_lines(T* p, const float* s, int64_t cols, bool stream) {
  constexpr int64_t kLine = 64 / sizeof(T);
  int64_t x = 0;
  if (stream)
    for (; x + kLine <= cols; x += kLine) stream_line(p + x, s + x);
  return x;
}

// Brings near what `finish` reads besides the sums, before they are made: it stands in rows far apart, which the
// processor does not foresee. Zen 4 forgets a prefetch to a page that it does not know, so that a line is read there.
inline void fetch(const Gemm& g, int64_t i, int64_t j, int64_t rows, int64_t cols) {
  const Epilogue& e = g.epilogue;
  const auto lines = [&](Block from) {
    const int64_t size = size_of(from.type);
    for (int64_t r = 0; r < rows; r++) {
      const char* p = static_cast<const char*>(from.data) + ((i + r) * from.ld + j) * size;
      for (int64_t x = 0; x < cols * size; x += 64)
        if (kAmx)
          __builtin_prefetch(p + x, 0, 2);
        else
          (void)*static_cast<const volatile char*>(p + x);
    }
  };
  if (e.gelu_of.data) lines(e.gelu_of);
  if (e.residual.data) lines(e.residual);
  if (e.accumulate) lines(g.c);
}

// Row i, columns [j, j + cols) of the product; s holds its sums and is overwritten.
DW_INLINE void finish_columns(const Gemm& g, float* __restrict s, int64_t i, int64_t j, int64_t cols,
                              Streamed streamed) {
  const Epilogue& e = g.epilogue;
  if (e.scale != 1.0f)
    for (int64_t x = 0; x < cols; x++) s[x] *= e.scale;
  if (e.bias)
    for (int64_t x = 0; x < cols; x++) s[x] += e.bias[j + x];
  if (e.pre.data)
    at(e.pre, i, j, [&](auto* p) {
      for (int64_t x = stream_lines(p, s, cols, streamed.pre); x < cols; x++) put(p, x, s[x]);
    });
  if (e.gelu)
    for (int64_t x = 0; x < cols; x++) s[x] = gelu(s[x]);
  if (e.gelu_of.data)
    at(e.gelu_of, i, j, [&](auto* p) {
      for (int64_t x = 0; x < cols; x++) s[x] *= gelu_grad(get(p, x));
    });
  if (e.row_scale) {
    const float by = e.row_scale[i];
    for (int64_t x = 0; x < cols; x++) s[x] *= by;
  }
  if (e.residual.data)
    at(e.residual, i, j, [&](auto* p) {
      for (int64_t x = 0; x < cols; x++) s[x] += get(p, x);
    });
  at(g.c, i, j, [&](auto* p) {
    int64_t x = stream_lines(p, s, cols, streamed.c);
    if (e.accumulate)
      for (; x < cols; x++) put(p, x, s[x] + get(p, x));
    else
      for (; x < cols; x++) put(p, x, s[x]);
  });
}

// Rows [i, i + rows), columns [j, j + cols) of the product; the sums' rows are `stride` apart.
void finish(const Gemm& g, float* s, int64_t stride, int64_t i, int64_t j, int64_t rows, int64_t cols,
            Streamed streamed) {
  if (cols == kGroup) {
    for (int64_t r = 0; r < rows; r++) finish_columns(g, s + r * stride, i + r, j, kGroup, streamed);
  } else {
    for (int64_t r = 0; r < rows; r++) finish_columns(g, s + r * stride, i + r, j, cols, streamed);
  }
}

}  // namespace
}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
