// Keys and values of an attention as operations take them.
#pragma once
#include "core/prepare.h"

namespace dw {

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
    if (v.dtype != want.dtype) p.fail("ERR_DTYPE", (prefix + what).c_str(), want.describe(), v.describe());
    bool fits = v.rank == want.rank;
    for (int d = 0; d < want.rank; d++) fits = fits && v.shape[d] == want.shape[d];
    if (!fits) p.fail("ERR_SHAPE", (prefix + what).c_str(), want.describe(), v.describe());
  };
  check("k", keys);
  if (keys.shape[1] < 1) p.fail("ERR_SHAPE", (prefix + "k").c_str(), "at least one key", keys.describe());
  check("v", values);
}

}  // namespace dw
