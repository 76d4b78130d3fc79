// How a launcher starts a kernel.
#pragma once
#include "runtime/context.h"

namespace dw {
namespace cuda {

// `blocks` ≥ 1 blocks in one dimension, on the context's stream. The queue checks for errors after the call.
template <class... P, class... A>
void launch(Context& c, void (*kernel)(P...), int64_t blocks, int threads, A... arguments) {
#ifdef DW_EMULATOR
  emulator::launch(c.stream, blocks, threads, [=] { kernel(arguments...); });
#else
  // clang-format off
  kernel<<<unsigned(blocks), unsigned(threads), 0, c.stream>>>(arguments...);
  // clang-format on
#endif
}

}  // namespace cuda
}  // namespace dw
