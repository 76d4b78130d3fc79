// What the decoding kernels and their oracles share: limits and faults.
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

constexpr int64_t kMostBeams = 32;  // of one item: as many as top_k has candidates

static inline void check_parent(int64_t parent, int64_t beams, int64_t element) {
  if (parent < 0 || parent >= beams)
    throw Error("ERR_ARGUMENT", "cache_reorder: argument 'parents': expected beams from 0 to " +
                                    std::to_string(beams - 1) + ", got " + std::to_string(parent) + " at element " +
                                    std::to_string(element));
}

[[noreturn]] static inline void fail_logits(int64_t row) {
  throw Error("ERR_KERNEL",
              "top_k: argument 'logits': expected numbers or -inf, got NaN or +inf in row " + std::to_string(row));
}

}  // namespace dw
