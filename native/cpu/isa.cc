#include "cpu/isa.h"

namespace dw {
namespace cpu {

const char* name_of(Isa isa) {
  static const char* const names[] = {"portable", "avx2", "avx512", "avx512bf16"};
  return names[int(isa)];
}

#if defined(__x86_64__)

bool supported(Isa isa) {
  __builtin_cpu_init();
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  switch (isa) {
    case Isa::portable:
      return true;
    case Isa::avx2:
      return has_avx2;
    case Isa::avx512:
      return has_avx512;
    default:
      return has_avx512 && __builtin_cpu_supports("avx512bf16");
  }
}

const RunFn* kernels(Isa isa) {
  switch (isa) {
    case Isa::avx2:
      return avx2::kKernels;
    case Isa::avx512:
      return avx512::kKernels;
    case Isa::avx512bf16:
      return avx512bf16::kKernels;
    default:
      return portable::kKernels;
  }
}

#else

bool supported(Isa isa) { return isa == Isa::portable; }
const RunFn* kernels(Isa) { return portable::kKernels; }

#endif

Isa best() {
  for (int i = kIsaCount - 1; i > 0; i--)
    if (supported(Isa(i))) return Isa(i);
  return Isa::portable;
}

}  // namespace cpu
}  // namespace dw
