// Instruction sets. Every file of native/cpu/ is compiled once per set, in a namespace of its own (DW_ISA); the table
// that is used is chosen at load by CPUID, or by DISTILWHISPER_CPU=portable|avx2|avx512|avx512bf16|amx.
#pragma once
#include "core/ops.h"

namespace dw {
namespace cpu {

enum class Isa : int { portable = 0, avx2 = 1, avx512 = 2, avx512bf16 = 3, amx = 4 };
constexpr int kIsaCount = 5;

const char* name_of(Isa isa);
bool supported(Isa isa);  // by this build and this processor
Isa best();
// The kernels of an instruction set in the order of DW_OPS.
const RunFn* kernels(Isa isa);

namespace portable {
extern const RunFn kKernels[];
}
namespace avx2 {
extern const RunFn kKernels[];
}
namespace avx512 {
extern const RunFn kKernels[];
}
namespace avx512bf16 {
extern const RunFn kKernels[];
}
namespace amx {
extern const RunFn kKernels[];
}

}  // namespace cpu
}  // namespace dw

#ifdef DW_ISA
namespace dw {
namespace cpu {
namespace DW_ISA {
DW_OPS(DW_DECLARE_RUN)
}
}  // namespace cpu
}  // namespace dw
#endif
