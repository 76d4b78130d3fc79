#include "core/shape.h"

#include "core/error.h"

namespace dw {

bool is_countable(const int64_t* counts, int n, int64_t each) {
  int64_t left = kMostBytes / each;
  for (int i = 0; i < n; i++) {
    if (counts[i] < 0 || counts[i] > left) return false;
    if (counts[i] > 0) left /= counts[i];
  }
  return true;
}

void check_shape(const char* who, const View& v) {
  const int64_t each = v.dtype == DType::q8 ? 1 + kScaleBytes : size_of(v.dtype);
  if (is_countable(v.shape, v.rank, each)) return;
  throw Error(
      "ERR_SHAPE",
      std::string(who) + ": expected dimensions from 0 on, for a tensor of less than 2^53 bytes, got " + v.describe());
}

}  // namespace dw
