// Copies n elements from one float type to another, on the context's stream.
#pragma once
#include "core/tensor.h"
#include "runtime/context.h"

namespace dw {
namespace cuda {

void convert(Context& context, const void* from, DType from_type, void* to, DType to_type, int64_t n);

}  // namespace cuda
}  // namespace dw
