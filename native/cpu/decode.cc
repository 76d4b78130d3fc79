// top_k: logits [R, V] → values [R, k], ids [R, k], logsumexp [R]; see reference/decode.cc for the formula.
// One pass over memory: a block is brought into the cache as floats with the suppressed ids at -inf, its maximum
// updates the running log-sum-exp, and only blocks whose maximum beats the k-th best so far are searched. The ranges of
// an `allowed` are searched one after the other, and nothing else of the row is read.
// cache_reorder: rows of caches, in place, by the rows that they go on from.
#include "ops/decode.h"

#include <cmath>
#include <cstring>

#include "core/decode.h"
#include "cpu/isa.h"
#include "cpu/simd/elements.h"
#include "cpu/simd/math.h"
#include "cpu/simd/vec.h"

namespace dw {
namespace cpu {
namespace DW_ISA {
namespace {

constexpr int64_t kBlock = 256;
constexpr int64_t kPiece = 1024;  // bytes of a cache's row that are moved at a time

// Of a part of a row: its log-sum-exp as top + log(sum), and the k best, best first.
struct Found {
  float top = -INFINITY;
  double sum = 0;  // NaN or +inf: the part holds one
  int64_t filled = 0;
  float values[32];
  int32_t ids[32];
};

// The columns [from, to) of z. `suppressed` is ascending.
template <class T>
void search(const T* z, int64_t from, int64_t to, const int32_t* suppressed, int64_t suppressed_count, int64_t k,
            Found& f) {
  alignas(64) float x[kBlock], e[kBlock];
  int64_t hidden = 0;
  while (hidden < suppressed_count && suppressed[hidden] < from) hidden++;
  for (int64_t at = from; at < to; at += kBlock) {
    const int64_t count = to - at < kBlock ? to - at : kBlock;
    for (int64_t i = 0; i < count; i++) x[i] = get(z, at + i);
    for (int64_t i = count; i < kBlock; i++) x[i] = -INFINITY;
    for (; hidden < suppressed_count && suppressed[hidden] < at + kBlock; hidden++)
      x[suppressed[hidden] - at] = -INFINITY;
    Vec high = load_vec(x);
    for (int64_t i = kLanes; i < kBlock; i += kLanes) high = max_vec(load_vec(x + i), high);
    const float block_top = largest(high);
    if (block_top > f.top) {
      f.sum *= std::exp(double(f.top) - double(block_top));
      f.top = block_top;
    }
    const float shift = f.top == -INFINITY ? 0.0f : f.top;
    // First all exponentials, then their sum: GCC vectorises the one and not a reduction over the other.
    for (int64_t i = 0; i < kBlock; i++) e[i] = exp_of(x[i] - shift);
    Vec partial = {};
    for (int64_t i = 0; i < kBlock; i += kLanes) partial += load_vec(e + i);
    f.sum += double(total(partial));
    if (f.filled == k && !(block_top > f.values[k - 1])) continue;
    for (int64_t i = 0; i < count; i++) {
      if (f.filled == k && !(x[i] > f.values[k - 1])) continue;
      // Equal values keep their order: the lower id came first.
      int64_t j = f.filled < k ? f.filled++ : k - 1;
      for (; j > 0 && x[i] > f.values[j - 1]; j--) {
        f.values[j] = f.values[j - 1];
        f.ids[j] = f.ids[j - 1];
      }
      f.values[j] = x[i];
      f.ids[j] = int32_t(at + i);
    }
  }
}

// What two parts have together, the ids of `a` below those of `b`; behind their live logits the lowest other ids.
Found merge(const Found& a, const Found& b, int64_t k) {
  Found f;
  f.top = a.top > b.top ? a.top : b.top;
  for (const Found* part : {&a, &b})
    if (part->top > -INFINITY) f.sum += part->sum * std::exp(double(part->top) - double(f.top));
  for (int64_t i = 0, j = 0; f.filled < k; f.filled++) {
    const float left = i < a.filled ? a.values[i] : -INFINITY, right = j < b.filled ? b.values[j] : -INFINITY;
    if (left == -INFINITY && right == -INFINITY) break;
    f.values[f.filled] = left >= right ? left : right;
    f.ids[f.filled] = left >= right ? a.ids[i++] : b.ids[j++];
  }
  const int64_t live = f.filled;
  for (int32_t id = 0; f.filled < k; id++) {
    bool given = false;
    for (int64_t j = 0; j < live; j++) given |= f.ids[j] == id;
    if (given) continue;
    f.values[f.filled] = -INFINITY;
    f.ids[f.filled++] = id;
  }
  return f;
}

// False when the row holds NaN or +inf. `allowed`: four bounds, or null.
template <class T>
bool search_row(const T* z, int64_t columns, const int32_t* suppressed, int64_t suppressed_count,
                const int32_t* allowed, int64_t k, float* values, int32_t* ids, float* logsumexp) {
  Found f;
  if (allowed) {
    Found text, times;
    search(z, allowed[0], allowed[1], suppressed, suppressed_count, k, text);
    search(z, allowed[2], allowed[3], suppressed, suppressed_count, k, times);
    if (!(text.sum < INFINITY && times.sum < INFINITY)) return false;
    const bool likelier = times.top > -INFINITY && double(times.top) + std::log(times.sum) > double(text.top);
    f = merge(likelier ? Found() : text, times, k);
  } else {
    search(z, 0, columns, suppressed, suppressed_count, k, f);
  }
  if (!(f.sum < INFINITY)) return false;
  // Relative to the maximum, so that nothing is lost where the logits are large.
  const double rest = std::log(f.sum);
  *logsumexp = f.top == -INFINITY ? f.top : float(double(f.top) + rest);
  for (int64_t j = 0; j < k; j++) {
    values[j] = f.values[j] == -INFINITY ? -INFINITY : float((double(f.values[j]) - double(f.top)) - rest);
    ids[j] = f.ids[j];
  }
  return true;
}

}  // namespace

void top_k(Context& ctx, const TopK& q) {
  const View &logits = q.logits, &suppress = q.suppress, &allowed = q.allowed;
  const int64_t rows = logits.shape[0], columns = logits.shape[1], k = q.k;
  if (rows == 0) return;
  const int32_t* bounds = allowed ? allowed.as<int32_t>() : nullptr;
  for (int64_t row = 0; bounds && row < rows; row++) check_allowed(bounds + 4 * row, columns, row);
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
      good[row] = search_row(static_cast<decltype(type)>(logits.data) + row * columns, columns, sorted, count,
                             bounds ? bounds + 4 * row : nullptr, k, q.values.as<float>() + row * k,
                             q.ids.as<int32_t>() + row * k, q.logsumexp.as<float>() + row);
    });
  });
  for (int64_t row = 0; row < rows; row++)
    if (!good[row]) fail_logits(row);
}

// Of an item a piece of every row that moves is set aside before the first one is overwritten.
void cache_reorder(Context& ctx, const CacheReorder& q) {
  const View& parents = q.parents;
  const int64_t items = parents.shape[0], beams = parents.shape[1], caches = int64_t(q.caches.size());
  for (int64_t i = 0; i < parents.size(); i++) check_parent(parents.as<int32_t>()[i], beams, i);
  ctx.pool.each(caches * items, [&](int64_t task) {
    const View& cache = q.caches[size_t(task / items)];
    const int64_t item = task % items, position = cache.shape[2] * size_of(cache.dtype);
    const int64_t row = cache.shape[1] * position, used = q.positions * position;
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
