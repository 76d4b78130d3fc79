// Elements of f32 and bf16 as floats, and how a launcher picks its kernel's types.
#pragma once
#include <cuda_bf16.h>

#include <cstdint>

#include "core/error.h"
#include "core/tensor.h"

namespace dw {
namespace cuda {

using bfloat = __nv_bfloat16;

__device__ inline float get(const float* p, int64_t i) { return p[i]; }
__device__ inline float get(const bfloat* p, int64_t i) { return __bfloat162float(p[i]); }
__device__ inline void put(float* p, int64_t i, float v) { p[i] = v; }
__device__ inline void put(bfloat* p, int64_t i, float v) { p[i] = __float2bfloat16_rn(v); }

// gelu(x) = x·Φ(x), and its derivative Φ(x) + x·φ(x).
__device__ inline float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }
__device__ inline float gelu_grad(float x) {
  return 0.5f * (1.0f + erff(x * 0.70710678118654752f)) + x * 0.39894228040143268f * expf(-0.5f * x * x);
}

// Calls body with a null pointer of the element type.
template <class Body>
void with_type(DType type, const Body& body) {
  if (type == DType::f32)
    body(static_cast<float*>(nullptr));
  else if (type == DType::bf16)
    body(static_cast<bfloat*>(nullptr));
  else
    throw Error("ERR_DTYPE", std::string("expected f32 or bf16, got ") + name_of(type));
}

// Blocks of 256 threads for n elements in a grid-stride loop: enough to fill the device, no more.
constexpr int kThreads = 256;
inline unsigned grid_for(int64_t n, int processors) {
  const int64_t blocks = (n + kThreads - 1) / kThreads, most = int64_t(processors) * 8;
  return unsigned(blocks < 1 ? 1 : blocks < most ? blocks : most);
}
#define DW_GRID_STRIDE(i, n) \
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < (n); i += int64_t(gridDim.x) * blockDim.x)

}  // namespace cuda
}  // namespace dw
