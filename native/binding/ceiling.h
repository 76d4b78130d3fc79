// What the processor can do at most, measured: loops of nothing but fused multiply-adds, of bf16 products, of reading.
#pragma once
#include <cstdint>

#include "cpu/isa.h"

namespace dw {

enum class Ceiling : int { f32 = 0, bf16 = 1, read = 2 };

// On `threads` threads, each on a processor of its own where there are so many, for a tenth of a second, with the
// instructions of `isa`, which this machine must have: f32 and bf16 in GFLOP/s, read in GB/s. Where an instruction set
// has no bf16 products its kernels convert and multiply in f32, and so does this. `bytes`: of the buffer that is read
// over and over, far more than the caches hold. Throws Error(ERR_OUT_OF_MEMORY).
double measure_ceiling(cpu::Isa isa, Ceiling what, int threads, int64_t bytes);

}  // namespace dw
