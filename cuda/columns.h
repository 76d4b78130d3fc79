// Sums over rows, always taken in the same order.
#pragma once
#include "core/tensor.h"
#include "runtime/context.h"

namespace dw {
namespace cuda {

// to[j] += Σ_r x[r, j]                                x [rows, columns] f32 or bf16
void add_columns(Context& context, const View& x, float* to);

// dweight[j] += Σ_r dy[r, j]·(x[r, j] - mean[r])·rstd[r], dbias[j] += Σ_r dy[r, j]; either may be null
void add_norm_columns(Context& context, const View& dy, const View& x, const float* mean, const float* rstd,
                      float* dweight, float* dbias);

}  // namespace cuda
}  // namespace dw
