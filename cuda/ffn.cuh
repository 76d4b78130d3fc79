// What the kernels of the gated expert FFN share: several elements of a thread at once, dropout, blocks of rows.
#pragma once
#include <algorithm>

#include "core/philox.h"
#include "gemm.h"
#include "launch.cuh"
#include "math.cuh"
#include "ops/gated_ffn.h"

namespace dw {
namespace cuda {

// ---- N elements that stand together: 4 by one load, or 1 ----

template <class T>
__device__ inline void load(float (&x)[1], const T* p, int64_t i) {
  x[0] = get(p, i);
}
template <class T>
__device__ inline void store(T* p, int64_t i, const float (&x)[1]) {
  put(p, i, x[0]);
}
__device__ inline void load(float (&x)[4], const float* p, int64_t i) {
  const float4 v = *reinterpret_cast<const float4*>(p + i);
  x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
}
__device__ inline void store(float* p, int64_t i, const float (&x)[4]) {
  *reinterpret_cast<float4*>(p + i) = make_float4(x[0], x[1], x[2], x[3]);
}
struct alignas(8) Four {
  bfloat v[4];
};
__device__ inline void load(float (&x)[4], const bfloat* p, int64_t i) {
  const Four f = *reinterpret_cast<const Four*>(p + i);
#pragma unroll
  for (int n = 0; n < 4; n++) x[n] = __bfloat162float(f.v[n]);
}
__device__ inline void store(bfloat* p, int64_t i, const float (&x)[4]) {
  Four f;
#pragma unroll
  for (int n = 0; n < 4; n++) f.v[n] = __float2bfloat16_rn(x[n]);
  *reinterpret_cast<Four*>(p + i) = f;
}

// Calls body with an integral constant: 4 when rows of `columns` elements and all addresses allow it, else 1.
template <class Body>
void with_lanes(int64_t columns, std::initializer_list<const void*> addresses, const Body& body) {
  bool wide = columns % 4 == 0;
  for (const void* p : addresses) wide = wide && reinterpret_cast<uintptr_t>(p) % 16 == 0;
  if (wide)
    body(std::integral_constant<int, 4>());
  else
    body(std::integral_constant<int, 1>());
}

// ---- dropout ----

// The factor of an element: 0, or 1 / (1 - p).
struct Dropout {
  const float* mask;  // explicit keep mask, or null: drawn
  float p, scale;
  uint32_t step, op;
  uint64_t seed;
  bool any() const { return mask || p > 0; }
};

inline Dropout gate_dropout(const GatedFfn& f) {
  const float p = float(f.gate_dropout());
  return {f.at(f.gate_mask) ? f.at(f.gate_mask).as<float>() : nullptr, p, 1 / (1 - p), f.step(), f.op() + 1, f.seed()};
}
inline Dropout expert_dropout(const GatedFfn& f) {
  const float p = float(f.expert_dropout());
  return {
      f.at(f.expert_mask) ? f.at(f.expert_mask).as<float>() : nullptr, p, 1 / (1 - p), f.step(), f.op() + 2, f.seed()};
}

// k[n] of elements i + n; i is a multiple of N.
template <int N>
__device__ inline void keep(float (&k)[N], const Dropout& d, int64_t i) {
  if (d.mask) {
    load(k, d.mask, i);
#pragma unroll
    for (int n = 0; n < N; n++) k[n] *= d.scale;
  } else if (d.p > 0) {
    const Philox4 r = philox(uint64_t(i) / 4, d.step, d.op, d.seed);
#pragma unroll
    for (int n = 0; n < N; n++) k[n] = uniform_of(r.v[N == 4 ? n : int(i % 4)]) >= d.p ? d.scale : 0.0f;
  } else {
#pragma unroll
    for (int n = 0; n < N; n++) k[n] = 1;
  }
}

// ---- rows ----

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

// A vector as f32.
const float* as_floats(Context& c, Workspace::Frame& frame, const View& v);

// drop(x) of rows [first, first + m) in `compute`; x itself when nothing drops.
Rows dropped_rows(Context& c, Workspace::Frame& frame, const View& x, int64_t first, int64_t m, const Dropout& drop,
                  DType compute);

// The kernels that walk down columns: block = (chunk of rows, strip of columns), a thread has N columns. What belongs
// to a column (a bias, a sum) stays in registers, and no index needs a division.
struct Strips {
  int64_t rows, columns, chunk, strips, chunks;
  int threads;
  int64_t blocks() const { return strips * chunks; }
};
inline Strips strips_of(const Context& c, int64_t rows, int64_t columns, int lanes) {
  Strips s;
  s.rows = rows, s.columns = columns;
  s.threads = columns / lanes > 128 ? 256 : columns / lanes > 64 ? 128 : 64;
  s.strips = (columns + s.threads * lanes - 1) / (s.threads * lanes);
  const int64_t wanted = std::max<int64_t>(1, int64_t(c.processors) * 8 / s.strips);
  s.chunk = std::max<int64_t>(16, (rows + wanted - 1) / wanted);
  s.chunks = (rows + s.chunk - 1) / s.chunk;
  return s;
}
// In a kernel: the thread's first column and its rows [begin, end); it returns when there is no such column.
#define DW_STRIP(z, N)                                                               \
  const int64_t chunk = blockIdx.x / (z).strips, begin = chunk * (z).chunk;          \
  const int64_t end = begin + (z).chunk < (z).rows ? begin + (z).chunk : (z).rows;   \
  const int64_t column = (blockIdx.x % (z).strips * blockDim.x + threadIdx.x) * (N); \
  if (column >= (z).columns) return

}  // namespace cuda
}  // namespace dw
