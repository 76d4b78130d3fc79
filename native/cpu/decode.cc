// top_k: logits [R, V] → values [R, k], ids [R, k], logsumexp [R]; see reference/decode.cc for the formula.
// One pass over memory: a block is brought into the cache as floats with the suppressed ids at -inf, its maximum
// updates the running log-sum-exp, and only blocks whose maximum beats the k-th best so far are searched.
// cache_reorder: rows of caches, in place, by the rows that they go on from.
#include "core/decode.h"

#include <cmath>
#include <cstring>

#include "cpu/isa.h"
#include "cpu/lanes.h"
#include "cpu/math.h"

namespace dw {
namespace cpu {
namespace DW_ISA {
namespace {

constexpr int64_t kBlock = 256;
constexpr int64_t kPiece = 1024;  // bytes of a cache's row that are moved at a time

// False when the row holds NaN or +inf. `suppressed` is ascending.
template <class T>
bool search_row(const T* z, int64_t columns, const int32_t* suppressed, int64_t suppressed_count, int64_t k,
                float* values, int32_t* ids, float* logsumexp) {
  alignas(64) float x[kBlock], e[kBlock];
  float best[32];
  int64_t filled = 0, hidden = 0;
  float top = -INFINITY;
  double sum = 0;
  for (int64_t at = 0; at < columns; at += kBlock) {
    const int64_t count = columns - at < kBlock ? columns - at : kBlock;
    for (int64_t i = 0; i < count; i++) x[i] = get(z, at + i);
    for (int64_t i = count; i < kBlock; i++) x[i] = -INFINITY;
    for (; hidden < suppressed_count && suppressed[hidden] < at + kBlock; hidden++)
      x[suppressed[hidden] - at] = -INFINITY;
    Lanes high = load_lanes(x);
    for (int64_t i = kLanes; i < kBlock; i += kLanes) {
      const Lanes v = load_lanes(x + i);
      high = v > high ? v : high;
    }
    const float block_top = max_of(high);
    if (block_top > top) {
      sum *= std::exp(double(top) - double(block_top));
      top = block_top;
    }
    const float shift = top == -INFINITY ? 0.0f : top;
    // First all exponentials, then their sum: GCC vectorises the one and not a reduction over the other.
    for (int64_t i = 0; i < kBlock; i++) e[i] = fast_exp(x[i] - shift);
    Lanes partial = {};
    for (int64_t i = 0; i < kBlock; i += kLanes) partial += load_lanes(e + i);
    sum += double(sum_of(partial));
    if (filled == k && !(block_top > best[k - 1])) continue;
    for (int64_t i = 0; i < count; i++) {
      if (filled == k && !(x[i] > best[k - 1])) continue;
      // Equal values keep their order: the lower id came first.
      int64_t j = filled < k ? filled++ : k - 1;
      for (; j > 0 && x[i] > best[j - 1]; j--) {
        best[j] = best[j - 1];
        ids[j] = ids[j - 1];
      }
      best[j] = x[i];
      ids[j] = int32_t(at + i);
    }
  }
  if (!(sum < INFINITY)) return false;
  // Relative to the maximum, so that nothing is lost where the logits are large.
  const double rest = std::log(sum);
  *logsumexp = top == -INFINITY ? top : float(double(top) + rest);
  for (int64_t j = 0; j < k; j++)
    values[j] = best[j] == -INFINITY ? -INFINITY : float((double(best[j]) - double(top)) - rest);
  return true;
}

}  // namespace

void top_k(Context& ctx, const Call& c) {
  const View &logits = c.in[0], &suppress = c.in[1];
  const int64_t rows = logits.shape[0], columns = logits.shape[1], k = c.integer(0);
  if (rows == 0) return;
  Workspace::Frame frame(ctx.workspace);
  const int64_t given = suppress ? suppress.size() : 0;
  int32_t* sorted = frame.take<int32_t>(given);
  int64_t count = 0;
  for (int64_t s = 0; s < given; s++) {
    const int32_t id = suppress.as<int32_t>()[s];
    check_suppressed(id, columns);
    int64_t j = count++;
    for (; j > 0 && sorted[j - 1] > id; j--) sorted[j] = sorted[j - 1];
    sorted[j] = id;
  }
  uint8_t* good = frame.take<uint8_t>(rows);
  ctx.pool.each(rows, [&](int64_t row) {
    with_type(logits.dtype, [&](auto* type) {
      good[row] =
          search_row(static_cast<decltype(type)>(logits.data) + row * columns, columns, sorted, count, k,
                     c.out[0].as<float>() + row * k, c.out[1].as<int32_t>() + row * k, c.out[2].as<float>() + row);
    });
  });
  for (int64_t row = 0; row < rows; row++)
    if (!good[row]) fail_logits(row);
}

// Of an item a piece of every row that moves is set aside before the first one is overwritten.
void cache_reorder(Context& ctx, const Call& c) {
  const View& parents = c.in[0];
  const int64_t items = parents.shape[0], beams = parents.shape[1], caches = int64_t(c.in.size()) - 1;
  for (int64_t i = 0; i < parents.size(); i++) check_parent(parents.as<int32_t>()[i], beams, i);
  ctx.pool.each(caches * items, [&](int64_t task) {
    const View& cache = c.in[size_t(1 + task / items)];
    const int64_t item = task % items, position = cache.shape[2] * size_of(cache.dtype);
    const int64_t row = cache.shape[1] * position, used = c.integer(0) * position;
    const int32_t* parent = parents.as<int32_t>() + item * beams;
    char* rows = cache.as<char>() + item * beams * row;
    alignas(64) char aside[kMostBeams * kPiece];
    for (int64_t at = 0; at < used; at += kPiece) {
      const size_t n = size_t(used - at < kPiece ? used - at : kPiece);
      for (int64_t k = 0; k < beams; k++)
        if (parent[k] != k) std::memcpy(aside + k * kPiece, rows + parent[k] * row + at, n);
      for (int64_t k = 0; k < beams; k++)
        if (parent[k] != k) std::memcpy(rows + k * row + at, aside + k * kPiece, n);
    }
  });
}

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
