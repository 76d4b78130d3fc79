// The instructions that C++ has no words for: tensor cores, their loads, asynchronous copies. sm_80 and later.
// A fragment of a matrix is spread over a warp; with g = lane / 4 and t = lane % 4, a thread holds of
//   A [16, 16]: rows g and g + 8 of columns 2t, 2t + 1, then of columns 2t + 8, 2t + 9
//   B [16, 8]:  rows 2t, 2t + 1, then 2t + 8, 2t + 9, of column g
//   C [16, 8]:  row g of columns 2t, 2t + 1, then row g + 8
#pragma once
#include <cstdint>

#include "math.cuh"

#ifdef DW_EMULATOR
#include "emulated_mma.h"  // test/cuda-emulator
#endif

namespace dw {
namespace cuda {

#ifndef DW_EMULATOR

// c += a·b
__device__ inline void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8×8 matrices; lane l gives the address of row l % 8 (16 bytes) of matrix l / 8 and gets of each matrix row g,
// columns 2t, 2t + 1.
__device__ inline void ldmatrix_x4(uint32_t (&r)[4], const void* shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(uint32_t(__cvta_generic_to_shared(shared))));
}
// The same, each matrix transposed.
__device__ inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(uint32_t(__cvta_generic_to_shared(shared))));
}

// 16 bytes to shared memory behind the thread's back, both 16-byte aligned; zeros when not valid.
__device__ inline void cp_async_16(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(uint32_t(__cvta_generic_to_shared(shared))),
               "l"(global), "r"(valid ? 16 : 0));
}
__device__ inline void cp_async_commit() { asm volatile("cp.async.commit_group;"); }
// Until at most `kPending` of this thread's groups are under way.
template <int kPending>
__device__ inline void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending));
}

// 2^x to 2 units in the last place; results below the smallest normal number are 0.
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

#endif

// Two floats as bf16, the first in the lower half.
__device__ inline uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
  uint32_t u;
  memcpy(&u, &v, 4);
  return u;
}

// Two neighbours of a row of C.
__device__ inline void put_pair(float* p, float x, float y) { *reinterpret_cast<float2*>(p) = make_float2(x, y); }
__device__ inline void put_pair(bfloat* p, float x, float y) { *reinterpret_cast<uint32_t*>(p) = pack_bf16(x, y); }

}  // namespace cuda
}  // namespace dw
