#include "core/convert.h"

namespace dw {

namespace {

struct f16 {
  uint16_t bits;
};

using dw::to_float;
float to_float(double v) { return float(v); }
// Exact: 2^112 is between the biases of the two exponents, and takes subnormals along.
float to_float(f16 v) {
  const uint32_t magnitude = v.bits & 0x7FFFu, moved = magnitude << 13;
  float f;
  std::memcpy(&f, &moved, 4);
  f *= 0x1p112f;
  uint32_t u;
  std::memcpy(&u, &f, 4);
  u |= (magnitude >= 0x7C00u ? 0x7F800000u : 0u) | uint32_t(v.bits & 0x8000u) << 16;
  std::memcpy(&f, &u, 4);
  return f;
}

void put(float& to, float v) { to = v; }
void put(bf16& to, float v) { to = to_bf16(v); }

template <class From, class To>
void each(const char* from, To* to, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    From v;
    std::memcpy(&v, from + i * int64_t(sizeof v), sizeof v);
    put(to[i], to_float(v));
  }
}

template <class To>
void into(const char* from, FileType type, To* to, int64_t count) {
  switch (type) {
    case FileType::f64:
      return each<double>(from, to, count);
    case FileType::f32:
      return each<float>(from, to, count);
    case FileType::f16:
      return each<f16>(from, to, count);
    case FileType::bf16:
      return each<bf16>(from, to, count);
  }
}

}  // namespace

void convert(const char* from, FileType type, void* to, DType dtype, int64_t count) {
  if (dtype == DType::bf16)
    into(from, type, static_cast<bf16*>(to), count);
  else
    into(from, type, static_cast<float*>(to), count);
}

}  // namespace dw
