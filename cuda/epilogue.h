// What a linear layer makes of its sums, and the product with it.
#pragma once
#include "lanes.cuh"
#include "products.cuh"

namespace dw {
namespace cuda {

// s = sums + bias; pre = s; s = gelu(s) or s ⊙ gelu'(gelu_of); y = s + residual. All but bias [rows, columns].
struct Epilogue {
  const float* sums;
  const float* bias;
  Any pre, gelu_of, residual, y;
  bool gelu;
  void skip(int64_t elements) {
    for (Any* a : {&pre, &gelu_of, &residual, &y})
      if (a->data) a->data = static_cast<char*>(a->data) + elements * (a->bf16 ? 2 : 4);
  }
};

// The product, then the epilogue; e.y is g.c. `sums` is not the caller's to set.
void product(Context& c, Gemm g, Epilogue e);

}  // namespace cuda
}  // namespace dw
