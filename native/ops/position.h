// Where the tokens of a call stand. A call that is replayed cannot have that as a number: it reads `position` i32 [1]
// when it runs, and its number, the offset, is the most that it may find there.
#pragma once
#include <string>

#include "core/error.h"
#include "core/tensor.h"

namespace dw {

// For backends whose tensors the host can read.
inline int64_t offset_at(const View& position, int64_t offset, const char* op) {
  if (!position) return offset;
  const int64_t at = *position.as<int32_t>();
  if (at < 0 || at > offset)
    throw Error("ERR_ARGUMENT", std::string(op) + ": argument 'position': expected a number from 0 to " +
                                    std::to_string(offset) + ", got " + std::to_string(at));
  return at;
}

}  // namespace dw
