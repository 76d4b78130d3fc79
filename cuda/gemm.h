// Matrix products by cuBLASLt, row-major.
#pragma once
#include <cstdint>
#include <memory>

#include "core/tensor.h"
#include "runtime/context.h"

namespace dw {
namespace cuda {

// C[m, n] = A·B + beta·addend + bias, summed in f32. Operands of another type than `compute` are rounded to it first,
// in workspace. GELU is not here: cuBLASLt's is the tanh form, Whisper's the erf one.
struct Gemm {
  int64_t m = 0, n = 0, k = 0;
  const void* a = nullptr;  // [m, k] with rows lda elements apart; a_transposed: [k, m]
  DType a_type = DType::f32;
  int64_t lda = 0;
  bool a_transposed = false;
  const void* b = nullptr;  // [k, n] with rows ldb elements apart; b_transposed: [n, k]
  DType b_type = DType::f32;
  int64_t ldb = 0;
  bool b_transposed = false;
  void* c = nullptr;  // f32 or bf16
  DType c_type = DType::f32;
  int64_t ldc = 0;
  DType compute = DType::f32;   // f32: full precision, no TF32. bf16: tensor cores
  const float* bias = nullptr;  // [n]
  float beta = 0;
  const void* addend = nullptr;  // what beta multiplies, laid out as C; null: C itself
  // The same product `batch` times, matrices these many elements apart.
  int64_t batch = 1, stride_a = 0, stride_b = 0, stride_c = 0;
};

// Throws Error(ERR_CUDA) when cuBLASLt is not there.
void gemm(Context& context, const Gemm& g);
// The same without it, of operands in `compute` already, k ≥ 1.
void gemm_plain(Context& context, const Gemm& g);

// A queue's handle of cuBLASLt and the algorithms that it has chosen, by shape.
class GemmState {
 public:
  GemmState();
  ~GemmState();
  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace cuda
}  // namespace dw
