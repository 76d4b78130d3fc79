// What shapes a tensor may have. Every View of a call has passed here, so that no product of dimensions that a kernel
// forms of one tensor leaves int64.
#pragma once
#include <initializer_list>

#include "core/tensor.h"

namespace dw {

// The most bytes of a tensor, and what those of an empty one come to without its dimensions of 0: numbers of JavaScript
// hold them exactly.
constexpr int64_t kMostBytes = (int64_t(1) << 53) - 1;

// Whether the product of these counts, those of 0 left out, times the bytes of each is at most kMostBytes.
bool is_countable(const int64_t* counts, int n, int64_t each);
inline bool is_countable(std::initializer_list<int64_t> counts, int64_t each) {
  return is_countable(counts.begin(), int(counts.size()), each);
}

// Throws Error(ERR_SHAPE) that begins with `who`.
void check_shape(const char* who, const View& v);

}  // namespace dw
