// What follows the sum, on a row of it while it lies in the nearest cache. See Epilogue in gemm.h for the order.
#pragma once
#include "cpu/gemm.h"
#include "cpu/gemm_kernels.h"
#include "cpu/math.h"

namespace dw {
namespace cpu {
namespace DW_ISA {
namespace {

#define DW_INLINE inline __attribute__((always_inline))

// Calls body with a pointer to element (i, j) of a float matrix, in its type.
template <class Body>
DW_INLINE void at(const void* data, DType type, int64_t ld, int64_t i, int64_t j, const Body& body) {
  if (type == DType::bf16)
    body(const_cast<bf16*>(static_cast<const bf16*>(data)) + i * ld + j);
  else
    body(const_cast<float*>(static_cast<const float*>(data)) + i * ld + j);
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
// Before another thread may read what was streamed.
DW_INLINE void end_stream() { _mm_sfence(); }
#else
constexpr bool kStreams = false;
template <class T>
DW_INLINE void stream_line(T*, const float*) {}
DW_INLINE void end_stream() {}
#endif

// Whether C goes past the caches: it is too large to be found there by what comes next.
DW_INLINE bool streams(const Gemm& g) {
  constexpr int64_t kBytes = 4 << 20;
  const int64_t size = size_of(g.c_type);
  return kStreams && !g.epilogue.accumulate && g.m * g.n * size >= kBytes && g.ldc * size % 64 == 0 &&
         reinterpret_cast<uintptr_t>(g.c) % 64 == 0;
}

// Row i, columns [j, j + cols) of the product; s holds its sums and is overwritten.
DW_INLINE void finish_columns(const Gemm& g, float* __restrict s, int64_t i, int64_t j, int64_t cols, bool stream) {
  const Epilogue& e = g.epilogue;
  if (e.scale != 1.0f)
    for (int64_t x = 0; x < cols; x++) s[x] *= e.scale;
  if (e.bias)
    for (int64_t x = 0; x < cols; x++) s[x] += e.bias[j + x];
  if (e.pre)
    at(e.pre, e.pre_type, e.pre_ld, i, j, [&](auto* p) {
      for (int64_t x = 0; x < cols; x++) put(p, x, s[x]);
    });
  if (e.gelu)
    for (int64_t x = 0; x < cols; x++) s[x] = gelu(s[x]);
  if (e.gelu_of)
    at(e.gelu_of, e.gelu_of_type, e.gelu_of_ld, i, j, [&](auto* p) {
      for (int64_t x = 0; x < cols; x++) s[x] *= gelu_grad(get(p, x));
    });
  if (e.row_scale) {
    const float by = e.row_scale[i];
    for (int64_t x = 0; x < cols; x++) s[x] *= by;
  }
  if (e.residual)
    at(e.residual, e.residual_type, e.residual_ld, i, j, [&](auto* p) {
      for (int64_t x = 0; x < cols; x++) s[x] += get(p, x);
    });
  at(g.c, g.c_type, g.ldc, i, j, [&](auto* p) {
    constexpr int64_t kLine = 64 / sizeof(*p);
    int64_t x = 0;
    if (stream)
      for (; x + kLine <= cols; x += kLine) stream_line(p + x, s + x);
    if (e.accumulate)
      for (; x < cols; x++) put(p, x, s[x] + get(p, x));
    else
      for (; x < cols; x++) put(p, x, s[x]);
  });
}

// Rows [i, i + rows), columns [j, j + cols) of the product; the sums' rows are `stride` apart.
void finish(const Gemm& g, float* s, int64_t stride, int64_t i, int64_t j, int64_t rows, int64_t cols, bool stream) {
  if (cols == kGroup) {
    for (int64_t r = 0; r < rows; r++) finish_columns(g, s + r * stride, i + r, j, kGroup, stream);
  } else {
    for (int64_t r = 0; r < rows; r++) finish_columns(g, s + r * stride, i + r, j, cols, stream);
  }
}

}  // namespace
}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
