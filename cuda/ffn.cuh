// What the kernels of the gated expert FFN share: what a language's rows are dropped to.
#pragma once
#include "dropout.cuh"
#include "ops/gated_ffn.h"
#include "products.cuh"
#include "runtime/launch.cuh"

namespace dw {
namespace cuda {

// A vector as f32.
const float* as_floats(Context& c, Workspace::Frame& frame, const View& v);

// drop(x) of rows [first, first + m) in `compute`; x itself when nothing drops.
Rows dropped_rows(Context& c, Workspace::Frame& frame, const View& x, int64_t first, int64_t m, const Dropout& drop,
                  DType compute);

}  // namespace cuda
}  // namespace dw
