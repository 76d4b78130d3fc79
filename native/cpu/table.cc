#include "cpu/isa.h"
#include "ops/all.h"

namespace dw {
namespace cpu {
namespace DW_ISA {

const RunFn kKernels[] = {DW_OPS(DW_KERNEL)};

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
