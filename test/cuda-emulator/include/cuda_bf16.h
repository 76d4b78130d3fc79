// bfloat16 as cuda_bf16.h names it: the part that the kernels use.
#pragma once
#include "core/tensor.h"

struct __nv_bfloat16 {
  dw::bf16 value;
};
struct __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
inline float __bfloat162float(__nv_bfloat16 v) { return dw::to_float(v.value); }
inline __nv_bfloat16 __float2bfloat16_rn(float v) { return {dw::to_bf16(v)}; }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
  return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}
