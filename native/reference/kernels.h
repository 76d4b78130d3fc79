// The oracle: every operation in plain loops, in double.
#pragma once
#include "core/context.h"
#include "core/ops.h"

namespace dw {
namespace reference {

DW_OPS(DW_DECLARE_KERNEL)
extern const RunFn kKernels[];

}  // namespace reference
}  // namespace dw
