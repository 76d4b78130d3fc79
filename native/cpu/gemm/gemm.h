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

// Rows of a matrix: where the first stands, its type, and the distance between rows in elements.
struct Block {
  void* data = nullptr;
  DType type = DType::f32;
  int64_t ld = 0;
};

struct Epilogue {
  // Applied in this order to the fp32 sum s of element (i, j); what has no data is left out:
  float scale = 1.0f;                // s = scale·s
  const float* bias = nullptr;       // s += bias[j]                                     [n]
  Block pre;                         // store s (pre-activation)
  bool gelu = false;                 // s = gelu(s), the exact one (erf)
  Block gelu_of;                     // s = s·gelu'(gelu_of[i, j])   (backward of an activation)
  const float* row_scale = nullptr;  // s *= row_scale[i]                                [m]
  Block residual;                    // s += residual[i, j]
  bool accumulate = false;           // s += C[i, j]
};

struct Gemm {
  int64_t m = 0, n = 0, k = 0;
  Block a;  // stored [m, k], or [k, m] when a_transposed
  Block b;  // stored [k, n], or [n, k] when b_transposed (a linear layer's weight)
  Block c;  // [m, n]
  bool a_transposed = false, b_transposed = false;
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
