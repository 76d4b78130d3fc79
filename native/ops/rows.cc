#include <cmath>

#include "core/ops.h"
#include "ops/ids.h"

namespace dw {

void check_ids(const View& ids, int64_t vocabulary, int64_t exempt, const char* op) {
  const int32_t* id = ids.as<int32_t>();
  for (int64_t i = 0, n = ids.size(); i < n; i++)
    if ((id[i] < 0 || id[i] >= vocabulary) && (id[i] != exempt || exempt < 0))
      throw Error("ERR_ARGUMENT", std::string(op) + ": argument 'ids': expected ids from 0 to " +
                                      std::to_string(vocabulary - 1) + ", got " + std::to_string(id[i]) +
                                      " at element " + std::to_string(i));
}

namespace ops {

namespace {

constexpr double kHuge = 1e308;

bool shape_ends_with(const View& a, const View& b) {
  if (b.rank > a.rank) return false;
  for (int d = 0; d < b.rank; d++)
    if (a.shape[a.rank - b.rank + d] != b.shape[d]) return false;
  return true;
}

}  // namespace

// [B, T, D] = embedding(ids i32 [B, T], table [V, D], positions [P, D], and, or not, position i32 [1] (ops/position.h);
// offset, out dtype)
void embedding(Prepare& p) {
  const View ids = p.tensor("ids", kI32, {kAny, kAny});
  const View table = p.tensor("table", kFloat, {kAny, kAny});
  const View positions = p.tensor("positions", kFloat, {kAny, table.shape[1]});
  if (p.more_tensors()) p.tensor("position", kI32, {1});
  const int64_t offset = p.integer("offset", 0, int64_t(1) << 31);
  p.require(offset + ids.shape[1] <= positions.shape[0], "positions",
            "at least " + std::to_string(offset + ids.shape[1]) + " positions", positions.describe());
  const DType out = p.dtype("out");
  p.output(out, {ids.shape[0], ids.shape[1], table.shape[1]});
  p.finish();
}

// embedding_backward(dy [B, T, D], ids i32 [B, T], inout dtable? [V, D], inout dpositions? [P, D]; offset, padding_idx)
void embedding_backward(Prepare& p) {
  const View dy = p.tensor("dy", kFloat, {kAny, kAny, kAny});
  p.tensor("ids", kI32, {dy.shape[0], dy.shape[1]});
  p.inout("dtable", kF32 | kF64, {kAny, dy.shape[2]}, true);
  const View dpositions = p.inout("dpositions", kF32 | kF64, {kAny, dy.shape[2]}, true);
  const int64_t offset = p.integer("offset", 0, int64_t(1) << 31);
  p.require(!dpositions || offset + dy.shape[1] <= dpositions.shape[0], "dpositions",
            "at least " + std::to_string(offset + dy.shape[1]) + " positions", dpositions.describe());
  p.integer("padding_idx", -1, int64_t(1) << 31);
  p.finish();
}

// [..] = add(a [..], b; alpha, beta, out dtype): b has as many elements as a, or the trailing shape of a and repeats.
void add(Prepare& p) {
  const View a = p.tensor("a", kFloat);
  const View b = p.tensor("b", kFloat);
  p.require(a.size() == b.size() || shape_ends_with(a, b), "b",
            std::to_string(a.size()) + " elements or the trailing shape of " + a.describe(), b.describe());
  p.number("alpha", -kHuge, kHuge);
  p.number("beta", -kHuge, kHuge);
  const DType out = p.dtype("out");
  p.output_like(a, out);
  p.finish();
}

// add_backward_rows(dy [B, T, D], inout dpositions [T, D])
void add_backward_rows(Prepare& p) {
  const View dy = p.tensor("dy", kFloat, {kAny, kAny, kAny});
  p.inout("dpositions", kF32 | kF64, {dy.shape[1], dy.shape[2]});
  p.finish();
}

// [..] = cast(x [..]; out dtype)
void cast(Prepare& p) {
  const View x = p.tensor("x", kFloat);
  const DType out = p.dtype("out");
  p.output_like(x, out);
  p.finish();
}

// fill(inout x [..]; value)
void fill(Prepare& p) {
  const View x = p.inout("x", kFloat | kI32);
  const double value = p.number("value", -INFINITY, INFINITY);
  if (x.dtype == DType::i32 && !(std::floor(value) == value && std::fabs(value) <= 2147483647.0))
    p.fail("ERR_ARGUMENT", "value", "a 32-bit integer", std::to_string(value));
  p.finish();
}

// cache_write(x [B, t, D], inout cache [B, P, D]; offset): cache[:, offset:offset + t] = x
void cache_write(Prepare& p) {
  const View x = p.tensor("x", kFloat, {kAny, kAny, kAny});
  const View cache = p.inout("cache", kFloat, {x.shape[0], kAny, x.shape[2]});
  const int64_t offset = p.integer("offset", 0, int64_t(1) << 31);
  p.require(offset + x.shape[1] <= cache.shape[1], "cache",
            "at least " + std::to_string(offset + x.shape[1]) + " positions", cache.describe());
  p.finish();
}

}  // namespace ops
}  // namespace dw
