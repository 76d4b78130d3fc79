#include "ops/rows.h"

#include <cmath>

#include "ops/ids.h"

namespace dw {

constexpr double kHuge = 1e308;

void check_ids(const View& ids, int64_t vocabulary, int64_t exempt, const char* op) {
  const int32_t* id = ids.as<int32_t>();
  for (int64_t i = 0, n = ids.size(); i < n; i++)
    if ((id[i] < 0 || id[i] >= vocabulary) && (id[i] != exempt || exempt < 0))
      throw Error("ERR_ARGUMENT", std::string(op) + ": argument 'ids': expected ids from 0 to " +
                                      std::to_string(vocabulary - 1) + ", got " + std::to_string(id[i]) +
                                      " at element " + std::to_string(i));
}

static bool shape_ends_with(const View& a, const View& b) {
  if (b.rank > a.rank) return false;
  for (int d = 0; d < b.rank; d++)
    if (a.shape[a.rank - b.rank + d] != b.shape[d]) return false;
  return true;
}

// Rows [offset, offset + count) must be there.
static void require_positions(const Prepare& p, const char* name, const View& rows, int64_t held, int64_t end) {
  p.require(
      end <= held, name, [&] { return "at least " + std::to_string(end) + " positions"; }, rows);
}

void Embedding::declare(Prepare& p) {
  p.tensor(ids, "ids", kI32, {kAny, kAny});
  p.tensor(table, "table", kFloat, {kAny, kAny});
  p.tensor(positions, "positions", kFloat, {kAny, table.shape[1]});
  p.trailing(position, "position", kI32, {1});
  p.integer(offset, "offset", 0, int64_t(1) << 31);
  require_positions(p, "positions", positions, positions.shape[0], offset + ids.shape[1]);
  p.dtype(type, "out");
  p.output(y, type, {ids.shape[0], ids.shape[1], table.shape[1]});
}

// The rows that are looked up, not the table.
void Embedding::count(Count& c) const {
  if (table.shape[0] > 0) c.only(table, double(ids.size()) / double(table.shape[0]));
  if (positions.shape[0] > 0) c.only(positions, double(ids.shape[1]) / double(positions.shape[0]));
  c.shape({ids.shape[0], ids.shape[1], table.shape[1]});
  c.work.type = table.dtype;
}

void EmbeddingBackward::declare(Prepare& p) {
  p.tensor(dy, "dy", kFloat, {kAny, kAny, kAny});
  p.tensor(ids, "ids", kI32, {dy.shape[0], dy.shape[1]});
  p.optional_inout(dtable, "dtable", kF32 | kF64, {kAny, dy.shape[2]});
  p.optional_inout(dpositions, "dpositions", kF32 | kF64, {kAny, dy.shape[2]});
  p.integer(offset, "offset", 0, int64_t(1) << 31);
  if (dpositions) require_positions(p, "dpositions", dpositions, dpositions.shape[0], offset + dy.shape[1]);
  p.integer(padding, "padding_idx", -1, int64_t(1) << 31);
}

void EmbeddingBackward::count(Count& c) const {
  if (dtable && dtable.shape[0] > 0) c.only(dtable, 2 * double(dy.rows()) / double(dtable.shape[0]));
  if (dpositions && dpositions.shape[0] > 0) c.only(dpositions, 2 * double(dy.shape[1]) / double(dpositions.shape[0]));
}

void Add::declare(Prepare& p) {
  p.tensor(a, "a", kFloat);
  p.tensor(b, "b", kFloat);
  p.require(
      a.size() == b.size() || shape_ends_with(a, b), "b",
      [&] { return std::to_string(a.size()) + " elements or the trailing shape of " + a.describe(); }, b);
  p.number(alpha, "alpha", -kHuge, kHuge);
  p.number(beta, "beta", -kHuge, kHuge);
  p.dtype(type, "out");
  p.output_like(y, a, type);
}

void AddBackwardRows::declare(Prepare& p) {
  p.tensor(dy, "dy", kFloat, {kAny, kAny, kAny});
  p.inout(dpositions, "dpositions", kF32 | kF64, {dy.shape[1], dy.shape[2]});
}

void AddBackwardRows::count(Count& c) const { c.updated(dpositions); }

void Cast::declare(Prepare& p) {
  p.tensor(x, "x", kFloat);
  p.dtype(type, "out");
  p.output_like(y, x, type);
}

void Fill::declare(Prepare& p) {
  p.inout(x, "x", kFloat | kI32);
  p.number(value, "value", -INFINITY, INFINITY);
  if (x.dtype == DType::i32 && !(std::floor(value) == value && std::fabs(value) <= 2147483647.0))
    p.fail("ERR_ARGUMENT", "value", "a 32-bit integer", std::to_string(value));
}

void CacheWrite::declare(Prepare& p) {
  p.tensor(x, "x", kFloat, {kAny, kAny, kAny});
  p.inout(cache, "cache", kFloat, {x.shape[0], kAny, x.shape[2]});
  p.inner(position, "position", kI32, {1});
  p.integer(offset, "offset", 0, int64_t(1) << 31);
  require_positions(p, "cache", cache, cache.shape[1], offset + x.shape[1]);
}

void CacheWrite::count(Count& c) const { c.work.bytes = 2 * double(x.bytes()); }

}  // namespace dw
