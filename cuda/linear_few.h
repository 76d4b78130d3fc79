// A linear layer of a few rows, as decoding has them.
#pragma once
#include "lanes.cuh"

namespace dw {
namespace cuda {

// y = act(x·Wᵀ + b) + residual, x [rows, k], W [n, k]; pre: what act is of. All but x and W may be left out, y not.
struct FewLinear {
  Any x, w;
  const float* bias;
  Any pre, residual, y;
  bool gelu;
  bool round_x, round_w;  // to bf16 first: f32 where the product is bf16's
  int64_t rows, n, k;
  int parts;  // of a sum over k; linear_few chooses
};

// Whether it is faster than a product by tensor cores and a pass behind it.
constexpr int64_t kFewRows = 16;
inline bool few_rows_fit(int64_t rows, int64_t n, int64_t k) {
  // From here on tensor cores have read the weights before these sums are done.
  return rows <= 4 || (rows <= kFewRows && n * k <= int64_t(16) << 20);
}
void linear_few(Context& c, FewLinear z);

}  // namespace cuda
}  // namespace dw
