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

// The bounds of what row `row` may choose, [a0, a1) and [a2, a3) of the ids.
static inline void check_allowed(const int32_t* bounds, int64_t vocabulary, int64_t row) {
  int64_t least = 0;
  for (int64_t i = 0; i < 4; least = bounds[i++])
    if (bounds[i] < least || bounds[i] > vocabulary)
      throw Error("ERR_ARGUMENT", "top_k: argument 'allowed': expected bounds of two ranges in order, from 0 to " +
                                      std::to_string(vocabulary) + ", got " + std::to_string(bounds[i]) +
                                      " at element " + std::to_string(4 * row + i));
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
