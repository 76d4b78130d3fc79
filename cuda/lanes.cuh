// Several elements of a thread at once.
#pragma once
#include <algorithm>
#include <initializer_list>
#include <type_traits>

#include "math.cuh"
#include "runtime/context.h"

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

// ---- N elements of a tensor whose type is known at run time: 8 by 16-byte loads, or 1 ----

// A fetch takes the same registers in both types, so that all of a thread's loads are under way before the first one
// is converted.
struct Any {
  void* data;
  bool bf16;
  __host__ __device__ explicit operator bool() const { return data != nullptr; }
};
inline Any any_of(const View& v) {
  if (v && v.dtype != DType::f32 && v.dtype != DType::bf16)
    throw Error("ERR_DTYPE", "expected f32 or bf16, got " + v.describe());
  return {v.data, v.dtype == DType::bf16};
}

template <int N>
struct Raw;
template <>
struct Raw<8> {
  uint4 low = {}, high = {};
};
template <>
struct Raw<1> {
  float value = 0;
};

__device__ inline void fetch(Raw<8>& r, const Any& a, int64_t i) {
  const char* p = static_cast<const char*>(a.data) + (a.bf16 ? 2 * i : 4 * i);
  r.low = *reinterpret_cast<const uint4*>(p);
  if (!a.bf16) r.high = *reinterpret_cast<const uint4*>(p + 16);
}
__device__ inline void fetch(Raw<1>& r, const Any& a, int64_t i) {
  r.value = a.bf16 ? get(static_cast<const bfloat*>(a.data), i) : static_cast<const float*>(a.data)[i];
}
__device__ inline void unpack(float (&x)[8], const Raw<8>& r, bool bf16) {
  const unsigned low[4] = {r.low.x, r.low.y, r.low.z, r.low.w};
  if (bf16) {
#pragma unroll
    for (int n = 0; n < 4; n++) {
      x[2 * n] = __uint_as_float(low[n] << 16);
      x[2 * n + 1] = __uint_as_float(low[n] & 0xffff0000u);
    }
  } else {
    const unsigned high[4] = {r.high.x, r.high.y, r.high.z, r.high.w};
#pragma unroll
    for (int n = 0; n < 4; n++) {
      x[n] = __uint_as_float(low[n]);
      x[n + 4] = __uint_as_float(high[n]);
    }
  }
}
__device__ inline void unpack(float (&x)[1], const Raw<1>& r, bool) { x[0] = r.value; }
template <int N>
__device__ inline void load(float (&x)[N], const Any& a, int64_t i) {
  Raw<N> r;
  fetch(r, a, i);
  unpack(x, r, a.bf16);
}
__device__ inline void store(const Any& a, int64_t i, const float (&x)[8]) {
  float low[4] = {x[0], x[1], x[2], x[3]}, high[4] = {x[4], x[5], x[6], x[7]};
  if (a.bf16) {
    Four both[2];
#pragma unroll
    for (int n = 0; n < 4; n++) {
      both[0].v[n] = __float2bfloat16_rn(low[n]);
      both[1].v[n] = __float2bfloat16_rn(high[n]);
    }
    uint4 v;
    memcpy(&v, both, sizeof v);
    *reinterpret_cast<uint4*>(static_cast<bfloat*>(a.data) + i) = v;
  } else {
    store(static_cast<float*>(a.data), i, low);
    store(static_cast<float*>(a.data), i + 4, high);
  }
}
__device__ inline void store(const Any& a, int64_t i, const float (&x)[1]) {
  if (a.bf16)
    put(static_cast<bfloat*>(a.data), i, x[0]);
  else
    static_cast<float*>(a.data)[i] = x[0];
}

// Calls body with an integral constant: 8 when rows of `columns` elements and all addresses allow it, else 1.
template <class Body>
void with_eight(int64_t columns, std::initializer_list<const void*> addresses, const Body& body) {
  bool wide = columns % 8 == 0;
  for (const void* p : addresses) wide = wide && reinterpret_cast<uintptr_t>(p) % 16 == 0;
  if (wide)
    body(std::integral_constant<int, 8>());
  else
    body(std::integral_constant<int, 1>());
}

__device__ inline float warp_sum(float x) {
  for (int i = 16; i > 0; i /= 2) x += __shfl_xor_sync(0xffffffffu, x, i);
  return x;
}
__device__ inline double warp_sum(double x) {
  for (int i = 16; i > 0; i /= 2) x += __shfl_xor_sync(0xffffffffu, x, i);
  return x;
}

// ---- columns ----

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
