// Products of floats on AMX tiles (see pack_thirds.h). A band of 32 rows meets panels of 32 columns. An item is a block of
// columns, kept in the second-level cache with its sums, and a chunk of rows; where k is long, its blocks come one
// after the other.
#pragma once
#include "cpu/gemm/epilogue.h"
#include "cpu/gemm/pack_thirds.h"
#include "cpu/gemm/share.h"

namespace dw {
namespace cpu {
namespace DW_ISA {
namespace {

// Of a block of the right operand, and of the sums of an item.
constexpr int64_t kThirdsBytes = 5 << 18, kThirdsSumBytes = 1 << 20;
// Columns of an item: at most so many; and at least so many, because each item reads the left operand's rows again,
// from farther away.
constexpr int64_t kMostThirdsColumns = 512, kLeastThirdsColumns = 256;
// What packing a block costs, in rows of the product.
constexpr int64_t kThirdsPacking = 100;
constexpr int kThirdsLayout = 1000;

void large_thirds(Context& ctx, const Gemm& g) {
  const int64_t words = (g.k + 1) / 2, steps = (words + 15) / 16, band = steps * 3 * kThirdWords;
  const int64_t threads = threads_for(ctx, g);
  Workspace::Frame frame(ctx.workspace);
  uint32_t* left = frame.take<uint32_t>(thirds_words(g.m, words));
  with_thirds_packer(g.a.data, g.a.type, g.a.ld, !g.a_transposed, [&](const auto& packer) {
    const int64_t piece = g.a_transposed ? 192 : 32;  // across k the neighbours of a cache line are read together
    share(ctx, threads, (g.m + piece - 1) / piece, [&](int64_t, int64_t i) {
      packer.bands(left + i * piece / 32 * band, i * piece, least(g.m, (i + 1) * piece), g.m, g.k);
    });
  });
  with_thirds_packer(g.b.data, g.b.type, g.b.ld, g.b_transposed, [&](const auto& packer) {
    const int64_t all = (g.n + kGroup - 1) / kGroup;
    const uint32_t* frozen = frozen_form(g, kThirdsLayout, thirds_words(all * kGroup, words), [&](uint32_t* to) {
      share(ctx, ctx.threads(), all,
            [&](int64_t, int64_t i) { packer.panels(to + i * 2 * band, i * kGroup, g.n, 0, words, g.k); });
    });

    // Columns of an item: what fits, but enough items for all threads.
    int64_t most = band ? kThirdsBytes / (4 * band) * kTileWidth / kGroup * kGroup : kMostThirdsColumns;
    most =
        least(most_of(least(most, kMostThirdsColumns), kLeastThirdsColumns), up((g.n + threads - 1) / threads, kGroup));
    const int64_t groups = (g.n + most - 1) / most, width = up((g.n + groups - 1) / groups, kGroup);
    const int64_t spans = most_of(1, (4 * band * width / kTileWidth + kThirdsBytes - 1) / kThirdsBytes);
    const int64_t stride = width + 16;
    const int64_t top = spans > 1 ? kThirdsSumBytes / (4 * stride) / 32 * 32 : kChunkRows;
    const int64_t chunk = chunk_rows(g.m, groups, threads, top, 32, frozen ? 2 : kThirdsPacking);
    const int64_t chunks = (g.m + chunk - 1) / chunk, items = groups * chunks, slots = least(threads, items);
    const int64_t block = frozen ? 0 : (steps + spans - 1) / spans * 3 * kThirdWords * width / kTileWidth;
    const int64_t sums_size = (spans > 1 ? chunk : 32) * stride;
    uint32_t* blocks = frame.take<uint32_t>(slots * block);
    float* sums = frame.take<float>(slots * sums_size);
    const Streamed streamed = streamed_by(g);
    share(ctx, slots, items, [&](int64_t slot, int64_t item) {
      Tiles tiles;
      const int64_t i0 = item % chunks * chunk, i1 = least(g.m, i0 + chunk);
      const int64_t j0 = item / chunks * width, cols = least(width, g.n - j0);
      for (int64_t span = 0; span < spans; span++) {
        const int64_t s0 = steps * span / spans, s1 = steps * (span + 1) / spans, w1 = least(words, s1 * 16);
        const uint32_t* right = frozen ? frozen + j0 / kTileWidth * band + s0 * 3 * kThirdWords : blocks + slot * block;
        const int64_t panel = frozen ? band : (s1 - s0) * 3 * kThirdWords;
        if (!frozen)
          for (int64_t j = 0; j < cols; j += kGroup)
            packer.panels(blocks + slot * block + j / kTileWidth * panel, j0 + j, g.n, s0 * 16, w1, g.k);
        for (int64_t i = i0; i < i1; i += 32) {
          const int64_t rows = least(32, i1 - i);
          if (span + 1 == spans) fetch(g, i, j0, rows, cols);
          float* acc = sums + slot * sums_size + (spans > 1 ? (i - i0) * stride : 0);
          for (int64_t j = 0; j < cols; j += kTileWidth)
            tiles.product_of_thirds(rows, up(least(kTileWidth, cols - j), 16), w1 - s0 * 16,
                                    left + i / 32 * band + s0 * 3 * kThirdWords, right + j / kTileWidth * panel,
                                    acc + j, stride * 4, span > 0);
          if (span + 1 == spans) finish(g, acc, stride, i, j0, rows, cols, streamed);
        }
      }
      streamed.end();
    });
  });
}

}  // namespace
}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
