#include "ops/all.h"
#include "reference/kernels.h"

namespace dw {
namespace reference {

const RunFn kKernels[] = {DW_OPS(DW_KERNEL)};

}  // namespace reference
}  // namespace dw
