// The matrix product of the CPU backend.
//   C[m, n] = epilogue( Σ_k A[m, k] · B[k, n] )       accumulated in fp32
// A and B may be f32 or bf16 and may be stored transposed; B may be q8, stored [n, k], for a product whose time is that
// of reading it. The product itself runs in f32, or in bf16 (`compute`): then f32 operands are rounded while
// they are packed, but rows that meet q8 to 16 bits of their largest (rows16.h). C is f32 or bf16.
#pragma once
#include "core/context.h"

namespace dw {
namespace cpu {
namespace DW_ISA {

struct Epilogue {
  // Applied in this order to the fp32 sum s of element (i, j):
  float scale = 1.0f;           // s = scale·s
  const float* bias = nullptr;  // s += bias[j]                                     [n]
  void* pre = nullptr;          // store s (pre-activation), type pre_type, row stride pre_ld
  DType pre_type = DType::f32;
  int64_t pre_ld = 0;
  bool gelu = false;              // s = gelu(s), the exact one (erf)
  const void* gelu_of = nullptr;  // s = s·gelu'(gelu_of[i, j])   (backward of an activation), type gelu_of_type
  DType gelu_of_type = DType::f32;
  int64_t gelu_of_ld = 0;
  const float* row_scale = nullptr;  // s *= row_scale[i]                                [m]
  const void* residual = nullptr;    // s += residual[i, j], type residual_type, row stride residual_ld
  DType residual_type = DType::f32;
  int64_t residual_ld = 0;
  bool accumulate = false;  // s += C[i, j]
};

struct Gemm {
  int64_t m = 0, n = 0, k = 0;
  const void* a = nullptr;  // stored [m, k], or [k, m] when a_transposed; row stride lda elements
  DType a_type = DType::f32;
  int64_t lda = 0;
  bool a_transposed = false;
  const void* b = nullptr;  // stored [k, n], or [n, k] when b_transposed (a linear layer's weight); row stride ldb
  DType b_type = DType::f32;
  int64_t ldb = 0;
  bool b_transposed = false;
  void* c = nullptr;  // [m, n], row stride ldc
  DType c_type = DType::f32;
  int64_t ldc = 0;
  DType compute = DType::f32;
  Epilogue epilogue;
  // The storage of b when b is a whole tensor: if that is frozen, the packed form is kept there from the first product
  // on.
  Storage* b_storage = nullptr;
};

// Uses the whole team. Deterministic for a given number of threads.
void gemm(Context& ctx, const Gemm& g);

// Products of the same rows (m, k, a and compute are equal): of few rows in one pass, to the bit what each gives alone.
void gemm(Context& ctx, const Gemm* products, int64_t count);

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
