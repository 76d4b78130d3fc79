// The faults that the decoding kernels and their oracles share.
#pragma once
#include <cstdint>
#include <string>

#include "core/error.h"

namespace dw {

static inline void check_suppressed(int64_t id, int64_t vocabulary) {
  if (id < 0 || id >= vocabulary)
    throw Error("ERR_ARGUMENT", "top_k: argument 'suppress': expected ids from 0 to " + std::to_string(vocabulary - 1) +
                                    ", got " + std::to_string(id));
}

[[noreturn]] static inline void fail_logits(int64_t row) {
  throw Error("ERR_KERNEL",
              "top_k: argument 'logits': expected numbers or -inf, got NaN or +inf in row " + std::to_string(row));
}

}  // namespace dw
