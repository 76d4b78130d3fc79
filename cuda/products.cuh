// The products of a linear layer, as Gemm.
#pragma once
#include "gemm.h"

namespace dw {
namespace cuda {

// Rows of a matrix: where the first stands, and its type. They follow each other without gaps.
struct Rows {
  void* data = nullptr;
  DType type = DType::f32;
  int64_t columns = 0;
};
inline Rows rows_of(const View& v, int64_t row = 0) {
  return {static_cast<char*>(v.data) + row * v.cols() * size_of(v.dtype), v.dtype, v.cols()};
}
inline Rows scratch(Workspace::Frame& frame, DType type, int64_t rows, int64_t columns) {
  return {frame.take<char>(rows * columns * size_of(type)), type, columns};
}

// c[m, n] = a[m, k]·Wᵀ, W stored [n, k].
inline Gemm times_transposed(const View& w, int64_t m, Rows a, Rows c, DType compute) {
  Gemm g;
  g.m = m, g.n = w.rows(), g.k = w.cols();
  g.a = a.data, g.a_type = a.type, g.lda = a.columns;
  g.b = w.data, g.b_type = w.dtype, g.ldb = w.cols(), g.b_transposed = true;
  g.c = c.data, g.c_type = c.type, g.ldc = c.columns;
  g.compute = compute;
  return g;
}
// c[m, k] = a[m, n]·W, W stored [n, k]: back through a linear layer.
inline Gemm times(const View& w, int64_t m, Rows a, Rows c, DType compute) {
  Gemm g = times_transposed(w, m, a, c, compute);
  g.n = w.cols(), g.k = w.rows(), g.b_transposed = false;
  return g;
}
// gradient[n, k] += dyᵀ·x over m rows: a linear layer's weight.
inline Gemm weight_gradient(const View& gradient, int64_t m, Rows dy, Rows x, DType compute) {
  Gemm g;
  g.m = gradient.rows(), g.n = gradient.cols(), g.k = m;
  g.a = dy.data, g.a_type = dy.type, g.lda = dy.columns, g.a_transposed = true;
  g.b = x.data, g.b_type = x.type, g.ldb = x.columns;
  g.c = gradient.data, g.c_type = gradient.dtype, g.ldc = gradient.cols();
  g.compute = compute;
  g.beta = 1;
  return g;
}

}  // namespace cuda
}  // namespace dw
