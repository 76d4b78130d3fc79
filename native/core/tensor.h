// A tensor as kernels see it: a contiguous, C-ordered block of one type.
#pragma once
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

namespace dw {

class Mapping;
class Memory;

// f64 is for the oracles and their tests (central differences); the fast backends refuse it.
// q8 is for matrices that are only read by products: a row of int8 is followed by its scale as f32, by which it is
// multiplied.
enum class DType : uint8_t { f32 = 0, bf16 = 1, i32 = 2, f64 = 3, q8 = 4 };

// Bytes of an element.
inline int64_t size_of(DType t) { return t == DType::f64 ? 8 : t == DType::bf16 ? 2 : t == DType::q8 ? 1 : 4; }
constexpr int64_t kScaleBytes = 4;  // behind a row of q8
inline const char* name_of(DType t) {
  switch (t) {
    case DType::f32:
      return "f32";
    case DType::bf16:
      return "bf16";
    case DType::i32:
      return "i32";
    case DType::q8:
      return "q8";
    default:
      return "f64";
  }
}

// bfloat16: the upper half of a float, rounded to nearest even; NaN stays NaN.
struct bf16 {
  uint16_t bits;
};
inline float to_float(bf16 v) {
  uint32_t u = uint32_t(v.bits) << 16;
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}
inline float to_float(float v) { return v; }
inline bf16 to_bf16(float f) {
  uint32_t u;
  std::memcpy(&u, &f, 4);
  uint32_t rounded = (u + 0x7FFFu + ((u >> 16) & 1u)) >> 16;
  uint32_t quiet = (u >> 16) | 0x40u;
  return bf16{uint16_t((u & 0x7FFFFFFFu) > 0x7F800000u ? quiet : rounded)};
}

constexpr int kMaxRank = 4;

struct View {
  void* data = nullptr;
  DType dtype = DType::f32;
  int rank = 0;
  int64_t shape[kMaxRank] = {1, 1, 1, 1};

  explicit operator bool() const { return data != nullptr || present; }
  bool present = false;  // an optional argument that was given (data may be null when the tensor is empty)

  int64_t size() const {
    int64_t n = 1;
    for (int i = 0; i < rank; i++) n *= shape[i];
    return n;
  }
  int64_t bytes() const { return size() * size_of(dtype) + (dtype == DType::q8 ? rows() * kScaleBytes : 0); }
  // The last dimension, and the product of the others: every tensor is rows × columns.
  int64_t cols() const { return rank == 0 ? 1 : shape[rank - 1]; }
  int64_t rows() const {
    int64_t n = 1;
    for (int i = 0; i + 1 < rank; i++) n *= shape[i];
    return n;
  }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
  std::string describe() const {
    std::string s = std::string(name_of(dtype)) + "[";
    for (int i = 0; i < rank; i++) s += (i ? ", " : "") + std::to_string(shape[i]);
    return s + "]";
  }
};

// Row r of q8: its int8, and the scale behind them.
inline const int8_t* q8_row(const View& v, int64_t r) { return v.as<int8_t>() + r * (v.cols() + kScaleBytes); }
inline float q8_scale(const int8_t* row, int64_t cols) {
  float scale;
  std::memcpy(&scale, row + cols, sizeof scale);
  return scale;
}

// Any float tensor read and written as double: the only access that the oracles use.
inline double load(const View& v, int64_t i) {
  switch (v.dtype) {
    case DType::q8: {
      const int8_t* row = q8_row(v, i / v.cols());
      return double(row[i % v.cols()]) * double(q8_scale(row, v.cols()));
    }
    case DType::f64:
      return v.as<double>()[i];
    case DType::f32:
      return v.as<float>()[i];
    case DType::bf16:
      return to_float(v.as<bf16>()[i]);
    default:
      return v.as<int32_t>()[i];
  }
}
inline void store(const View& v, int64_t i, double value) {
  switch (v.dtype) {
    case DType::f64:
      v.as<double>()[i] = value;
      break;
    case DType::f32:
      v.as<float>()[i] = float(value);
      break;
    case DType::bf16:
      v.as<bf16>()[i] = to_bf16(float(value));
      break;
    default:
      v.as<int32_t>()[i] = int32_t(value);
  }
}

// What stands behind a tensor. Parameters, optimiser state and caches own their memory (`owned`), or are part of a
// mapped file; everything else lies in the stream's arena and is valid until it is disposed or the step ends.
struct Storage {
  ~Storage();
  void* data = nullptr;
  int64_t bytes = 0;
  const Memory* memory = nullptr;  // where `data` lies
  std::shared_ptr<Memory> owned;   // to give it back to
  std::shared_ptr<const Mapping> mapping;
  bool frozen = false;  // never written again: kernels may cache a packed form of it
  // Packed forms for GEMM, made at first use by the stream's worker and kept: [weight as Bᵀ, weight as B] × [f32,
  // bf16].
  std::shared_ptr<void> packed[4];
};

}  // namespace dw
