// Instruction sets. Every file of native/cpu/ is compiled once per set, in a namespace of its own (DW_ISA); the table
// that is used is chosen at load by CPUID, or by DISTILWHISPER_CPU=portable|avx2|avx512|avx512bf16|amx.
#pragma once
#include "core/context.h"
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

// What an instruction set can do at most, as loops of one thread (binding/ceiling.h).
struct CeilingLoops {
  double (*f32)();                                // the floating-point operations that it did
  void (*bf16_prepare)();                         // once on the thread, before the next
  double (*bf16)();                               // the same in bf16 products
  void (*read)(const char* from, int64_t bytes);  // bytes: a multiple of 512
};
const CeilingLoops& ceiling_loops(Isa isa);

namespace portable {
extern const RunFn kKernels[];
extern const CeilingLoops kCeilingLoops;
}  // namespace portable
namespace avx2 {
extern const RunFn kKernels[];
extern const CeilingLoops kCeilingLoops;
}  // namespace avx2
namespace avx512 {
extern const RunFn kKernels[];
extern const CeilingLoops kCeilingLoops;
}  // namespace avx512
namespace avx512bf16 {
extern const RunFn kKernels[];
extern const CeilingLoops kCeilingLoops;
}  // namespace avx512bf16
namespace amx {
extern const RunFn kKernels[];
extern const CeilingLoops kCeilingLoops;
}  // namespace amx

}  // namespace cpu
}  // namespace dw

#ifdef DW_ISA
namespace dw {
namespace cpu {
namespace DW_ISA {
DW_OPS(DW_DECLARE_KERNEL)
}
}  // namespace cpu
}  // namespace dw
#endif
