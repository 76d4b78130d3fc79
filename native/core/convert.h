// The float types of files as those of tensors.
#pragma once
#include "core/tensor.h"

namespace dw {

enum class FileType : uint8_t { f64 = 0, f32 = 1, f16 = 2, bf16 = 3 };

inline int64_t size_of(FileType t) { return t == FileType::f64 ? 8 : t == FileType::f32 ? 4 : 2; }
inline bool same(FileType t, DType d) {
  return (t == FileType::f32 && d == DType::f32) || (t == FileType::bf16 && d == DType::bf16);
}

// `count` values at any address as f32 or bf16, rounded to nearest even; to bf16 by way of f32.
void convert(const char* from, FileType type, void* to, DType dtype, int64_t count);

}  // namespace dw
