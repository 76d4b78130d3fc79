// Keys and values of an attention as operations take them.
#pragma once
#include "core/op.h"

namespace dw {
namespace ops {

// Keys and values are [B, Tk, D] of `type`, or both in q8 [B, Tk, heads, D / heads]: each head of a row has a scale.
inline void require_keys(const Prepare& p, const std::string& prefix, const View& keys, const View& values, DType type,
                         int64_t B, int64_t D, int64_t heads) {
  const bool q8 = keys.dtype == DType::q8;
  View want;
  want.dtype = q8 ? DType::q8 : type;
  want.rank = q8 ? 4 : 3;
  want.shape[0] = B;
  want.shape[1] = keys.rank > 1 ? keys.shape[1] : 1;
  want.shape[2] = q8 ? heads : D;
  if (q8) want.shape[3] = D / heads;
  const auto check = [&](const char* what, const View& v) {
    const std::string name = prefix + what, expected = want.describe();
    if (v.dtype != want.dtype) p.fail("ERR_DTYPE", name.c_str(), expected, v.describe());
    bool fits = v.rank == want.rank;
    for (int d = 0; d < want.rank; d++) fits = fits && v.shape[d] == want.shape[d];
    p.require(fits, name.c_str(), expected, v.describe());
  };
  check("k", keys);
  p.require(keys.shape[1] >= 1, (prefix + "k").c_str(), "at least one key", keys.describe());
  check("v", values);
}

}  // namespace ops
}  // namespace dw
