#include "cpu/isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace dw {
namespace cpu {

const char* name_of(Isa isa) {
  static const char* const names[] = {"portable", "avx2", "avx512", "avx512bf16", "amx"};
  return names[int(isa)];
}

#if defined(__x86_64__)

// AMX's tiles are 8 KiB of state a thread: Linux gives them to a process that asks.
static bool amx_allowed() {
#if defined(__linux__)
  unsigned a, b, c, d;
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & kBf16) == 0 || (d & kTile) == 0) return false;
  constexpr int kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
  return false;
#endif
}

struct Set {
  const RunFn* kernels;
  const CeilingLoops* loops;
};

// An instruction set's kernels; those of one that was not built (binding.gyp) are the portable ones.
static Set built(Isa isa) {
  switch (isa) {
#if defined(DW_AVX2)
    case Isa::avx2:
      return {avx2::kKernels, &avx2::kCeilingLoops};
#endif
#if defined(DW_AVX512)
    case Isa::avx512:
      return {avx512::kKernels, &avx512::kCeilingLoops};
#endif
#if defined(DW_AVX512BF16)
    case Isa::avx512bf16:
      return {avx512bf16::kKernels, &avx512bf16::kCeilingLoops};
#endif
#if defined(DW_AMX)
    case Isa::amx:
      return {amx::kKernels, &amx::kCeilingLoops};
#endif
    default:
      return {portable::kKernels, &portable::kCeilingLoops};
  }
}

bool supported(Isa isa) {
  if (isa != Isa::portable && built(isa).kernels == portable::kKernels) return false;
  __builtin_cpu_init();
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  // Every processor with the one has the other.
  const bool has_dots = has_avx512 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
  switch (isa) {
    case Isa::portable:
      return true;
    case Isa::avx2:
      return has_avx2;
    case Isa::avx512:
      return has_avx512;
    case Isa::avx512bf16:
      return has_dots;
    default:
      return has_dots && amx_allowed();
  }
}

const RunFn* kernels(Isa isa) { return built(isa).kernels; }
const CeilingLoops& ceiling_loops(Isa isa) { return *built(isa).loops; }

#else

bool supported(Isa isa) { return isa == Isa::portable; }
const RunFn* kernels(Isa) { return portable::kKernels; }
const CeilingLoops& ceiling_loops(Isa) { return portable::kCeilingLoops; }

#endif

Isa best() {
  for (int i = kIsaCount - 1; i > 0; i--)
    if (supported(Isa(i))) return Isa(i);
  return Isa::portable;
}

}  // namespace cpu
}  // namespace dw
