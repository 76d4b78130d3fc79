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

// Row i, columns [j, j + cols) of the product; s holds its sums and is overwritten.
DW_INLINE void finish_columns(const Gemm& g, float* __restrict s, int64_t i, int64_t j, int64_t cols) {
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
    if (e.accumulate)
      for (int64_t x = 0; x < cols; x++) put(p, x, s[x] + get(p, x));
    else
      for (int64_t x = 0; x < cols; x++) put(p, x, s[x]);
  });
}

void finish(const Gemm& g, float* s, int64_t i, int64_t j, int64_t rows, int64_t cols) {
  if (cols == kGroup) {
    for (int64_t r = 0; r < rows; r++) finish_columns(g, s + r * kGroup, i + r, j, kGroup);
  } else {
    for (int64_t r = 0; r < rows; r++) finish_columns(g, s + r * kGroup, i + r, j, cols);
  }
}

}  // namespace
}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
