// How a product is cut into items that threads take, and the packed forms of frozen weights.
#pragma once
#include <atomic>
#include <vector>

#include "core/packed.h"
#include "cpu/gemm/gemm.h"

namespace dw {
namespace cpu {
namespace DW_ISA {
namespace {

constexpr int64_t kChunkRows = 1536;  // of one item, so that its sums stay in the second-level cache too
constexpr double kAlone = 4e5;        // operations that are done before another thread would have woken

inline int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t most_of(int64_t a, int64_t b) { return a > b ? a : b; }

// Runs body(slot, item) for every item: a slot is a place for scratch, and takes the next item when it is done with
// one.
template <class Body>
void share(Context& ctx, int64_t slots, int64_t items, const Body& body) {
  std::atomic<int64_t> next{0};
  ctx.pool.each(slots, [&](int64_t slot) {
    for (int64_t item; (item = next.fetch_add(1, std::memory_order_relaxed)) < items;) body(slot, item);
  });
}

// The same, but a slot's items are neighbours, read in their order; a slot that is done goes on with another's.
template <class Body>
void share_ranges(Context& ctx, int64_t slots, int64_t items, const Body& body) {
  struct alignas(64) Next {
    std::atomic<int64_t> item{0};
  };
  std::vector<Next> next(static_cast<size_t>(slots));
  const auto begin = [&](int64_t slot) { return items * slot / slots; };
  for (int64_t slot = 0; slot < slots; slot++) next[size_t(slot)].item = begin(slot);
  ctx.pool.each(slots, [&](int64_t slot) {
    for (int64_t turn = 0; turn < slots; turn++) {
      const int64_t of = (slot + turn) % slots;
      for (int64_t item; (item = next[size_t(of)].item.fetch_add(1, std::memory_order_relaxed)) < begin(of + 1);)
        body(slot, item);
    }
  });
}

// How many rows an item takes, a multiple of `step` and at most `most`, so that the threads are done together: items
// are column groups × chunks of rows, and each costs `extra` rows besides.
inline int64_t chunk_rows(int64_t m, int64_t groups, int64_t threads, int64_t most, int64_t step, int64_t extra) {
  int64_t chunk = 0, best = INT64_MAX;
  for (int64_t parts = (m + most - 1) / most, tries = 0; tries < 4 * threads; parts++, tries++) {
    const int64_t rows = up((m + parts - 1) / parts, step);
    const int64_t items = groups * ((m + rows - 1) / rows);
    const int64_t cost = (items + threads - 1) / threads * (rows + extra);
    if (cost < best) best = cost, chunk = rows;
    if (rows == step) break;
  }
  return chunk;
}

inline int64_t threads_for(const Context& ctx, const Gemm& g) {
  return 2.0 * double(g.m) * double(g.n) * double(g.k) < kAlone ? 1 : ctx.threads();
}

// The packed form of a frozen weight, made by fill(to) if it is not there yet; null when b is not such a weight, or is
// kept in another layout.
template <class Fill>
const uint32_t* frozen_form(const Gemm& g, int layout, int64_t words, const Fill& fill) {
  if (!g.b_storage || !g.b_storage->frozen) return nullptr;
  const int slot = packed_slot(g.b_transposed, g.compute);
  const PackedWeight* packed = find_packed(*g.b_storage, slot);
  if (!packed) {
    auto* made = new PackedWeight(words * 4);
    made->source = g.b.data;
    made->layout = layout;
    made->type = g.b.type;
    made->n = g.n;
    made->k = g.k;
    made->ld = g.b.ld;
    try {
      fill(static_cast<uint32_t*>(made->panels));
    } catch (...) {
      delete made;
      throw;
    }
    packed = keep_packed(*g.b_storage, slot, made);
  }
  const bool same = packed->source == g.b.data && packed->layout == layout && packed->type == g.b.type &&
                    packed->n == g.n && packed->k == g.k && packed->ld == g.b.ld;
  return same ? static_cast<const uint32_t*>(packed->panels) : nullptr;
}

}  // namespace
}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
