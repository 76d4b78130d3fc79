// Elements of a tensor as floats, whatever their type.
#pragma once
#include <cstdint>
#include <cstring>

#include "core/tensor.h"

namespace dw {
namespace cpu {
namespace DW_ISA {

static inline float get(const float* p, int64_t i) { return p[i]; }
static inline float get(const bf16* p, int64_t i) { return to_float(p[i]); }
static inline float get(const int8_t* p, int64_t i) { return float(p[i]); }
static inline void put(float* p, int64_t i, float v) { p[i] = v; }
static inline void put(bf16* p, int64_t i, float v) { p[i] = to_bf16(v); }

// max |x|. Sizes compare like their bits, and so do infinities and NaN behind them.
template <class T>
static inline float largest_size(const T* x, int64_t count) {
  int32_t top = 0;
  for (int64_t i = 0; i < count; i++) {
    const float v = get(x, i);
    int32_t bits;
    std::memcpy(&bits, &v, sizeof bits);
    bits &= 0x7FFFFFFF;
    top = bits > top ? bits : top;
  }
  float size;
  std::memcpy(&size, &top, sizeof size);
  return size;
}

// Calls body(typed pointer) for the float type of a view.
template <class Body>
static inline void with_type(DType t, const Body& body) {
  if (t == DType::bf16)
    body(static_cast<bf16*>(nullptr));
  else
    body(static_cast<float*>(nullptr));
}

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
