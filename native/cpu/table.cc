#include "cpu/isa.h"

namespace dw {
namespace cpu {
namespace DW_ISA {

#define DW_KERNEL(name) name,
const RunFn kKernels[] = {DW_OPS(DW_KERNEL)};

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
