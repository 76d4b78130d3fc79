#include "cpu/gemm/gemm.h"

#include "cpu/gemm/epilogue.h"
#include "cpu/gemm/rows16.h"
#include "cpu/gemm/share.h"
#include "cpu/gemm/small.h"
#include "cpu/gemm/thirds.h"

namespace dw {
namespace cpu {
namespace DW_ISA {
namespace {

constexpr int64_t kBlockWords = 768;  // of k in a panel: 64 × 768 words, a fifth of a second-level cache
constexpr int64_t kTileWords = 128;   // of k that AMX tiles take at a time: both operands in the nearest cache
constexpr int64_t kTileBytes = 1 << 20, kTileColumns = 512;  // of the right operand, for one item on AMX
// Up to so many rows the weight is read as it is: packing it (or, when it is frozen, keeping a packed copy) would cost
// more.
constexpr int64_t kSmallRows = kLanes == 16 ? 24 : 8, kSmallFrozenRows = 8;

// The left operand as rows of words.
struct Rows {
  const char* data;
  int64_t bytes;  // from row to row
};

// `padded`: every row is followed by zeros up to a multiple of 16 words.
Rows left_rows(Context& ctx, Workspace::Frame& frame, const Gemm& g, int64_t slots, bool padded) {
  const bool pairs = kDot && g.compute == DType::bf16;
  const bool as_is =
      pairs ? g.a.type == DType::bf16 && g.k % 2 == 0 : g.a.type == DType::f32 && g.compute == DType::f32;
  // In a first-level cache of 8 ways, rows a page apart push each other out: 6 of them and a panel.
  const bool apart = kLanes == 16 || g.a.ld * size_of(g.a.type) % 4096 != 0;
  if (as_is && !g.a_transposed && !padded && apart)
    return {static_cast<const char*>(g.a.data), g.a.ld * size_of(g.a.type)};
  const int64_t words = pairs ? (g.k + 1) / 2 : g.k;
  int64_t stride = up(words, 16);
  if (stride % 512 == 0) stride += 16;  // rows a page apart would share the cache's sets
  uint32_t* to = frame.take<uint32_t>(g.m * stride);
  with_packer(g.a.data, g.a.type, g.a.ld, !g.a_transposed, g.compute, [&](const auto& packer) {
    const int64_t block = g.a_transposed ? 192 : 48;
    share(ctx, slots, (g.m + block - 1) / block, [&](int64_t, int64_t i) {
      packer.rows(to + i * block * stride, stride, i * block, least(g.m, (i + 1) * block), g.k);
    });
  });
  return {reinterpret_cast<const char*>(to), stride * 4};
}

// The panels of a frozen weight, by blocks of words.
const uint32_t* frozen_panels(Context& ctx, const Gemm& g, int64_t words, int64_t blocks) {
  const int64_t groups = (g.n + kGroup - 1) / kGroup;
  return frozen_form(g, kNR * 2 + kDot, groups * kGroup * words, [&](uint32_t* to) {
    with_packer(g.b.data, g.b.type, g.b.ld, g.b_transposed, g.compute, [&](const auto& packer) {
      share(ctx, ctx.threads(), groups * blocks, [&](int64_t, int64_t item) {
        const int64_t group = item / blocks, block = item % blocks;
        const int64_t w0 = words * block / blocks, w1 = words * (block + 1) / blocks;
        packer.panels(to + (group * words + w0) * kGroup, group * kGroup, g.n, w0, w1, g.k);
      });
    });
  });
}

// One item: rows [i0, i1) of a group of columns.
template <bool Pairs, class Packer>
void multiply(const Gemm& g, const Rows& a, const Packer& packer, const uint32_t* frozen, int64_t words, int64_t blocks,
              int64_t i0, int64_t i1, int64_t j0, uint32_t* panel, float* sums) {
  const int64_t cols = least(kGroup, g.n - j0);
  const Streamed streamed = streamed_by(g);
  for (int64_t block = 0; block < blocks; block++) {
    const int64_t w0 = words * block / blocks, w1 = words * (block + 1) / blocks;
    const uint32_t* b = panel;
    if (frozen)
      b = frozen + (j0 / kGroup * words + w0) * kGroup;
    else
      packer.panels(panel, j0, g.n, w0, w1, g.k);
    for (int64_t i = i0; i < i1; i += kMR) {
      const int64_t rows = least(kMR, i1 - i);
      if (block + 1 == blocks) fetch(g, i, j0, rows, cols);
      float* acc = blocks > 1 ? sums + (i - i0) * kGroup : sums;
      const char* q = a.data + i * a.bytes + w0 * 4;
      const char* next = a.data + (i + kMR < i1 ? i + kMR : i0) * a.bytes + w0 * 4;
      for (int64_t j = 0; j < cols; j += kNR) {
        const int64_t vectors = least(kVectors, (cols - j + kLanes - 1) / kLanes);
        const char* p = reinterpret_cast<const char*>(b + j * (w1 - w0));
        if (rows == kMR && vectors == kVectors)
          tile<Pairs, kMR, kVectors>(q, a.bytes, p, w1 - w0, acc + j, block > 0, next);
        else
          pick_tile<Pairs>(rows, vectors)(q, a.bytes, p, w1 - w0, acc + j, block > 0, next);
      }
      if (block + 1 == blocks) finish(g, acc, kGroup, i, j0, rows, cols, streamed);
    }
  }
  streamed.end();
}

template <bool Pairs>
void large(Context& ctx, const Gemm& g) {
  const int64_t words = Pairs ? (g.k + 1) / 2 : g.k;
  const int64_t blocks = words ? (words + kBlockWords - 1) / kBlockWords : 1;
  const int64_t threads = threads_for(ctx, g);
  const uint32_t* frozen = frozen_panels(ctx, g, words, blocks);

  const int64_t groups = (g.n + kGroup - 1) / kGroup;
  const int64_t chunk = chunk_rows(g.m, groups, threads, kChunkRows, kMR, frozen ? 2 : Pairs ? 48 : 24);
  const int64_t chunks = (g.m + chunk - 1) / chunk, items = groups * chunks, slots = least(threads, items);

  Workspace::Frame frame(ctx.workspace);
  const int64_t panel_size = frozen ? 0 : up(words, blocks) / blocks * kGroup;
  const int64_t sums_size = (blocks > 1 ? chunk : kMR) * kGroup;
  uint32_t* panels = frame.take<uint32_t>(slots * panel_size);
  float* sums = frame.take<float>(slots * sums_size);
  const Rows a = left_rows(ctx, frame, g, threads, false);
  with_packer(g.b.data, g.b.type, g.b.ld, g.b_transposed, g.compute, [&](const auto& packer) {
    share(ctx, slots, items, [&](int64_t slot, int64_t item) {
      const int64_t i0 = item % chunks * chunk;
      multiply<Pairs>(g, a, packer, frozen, words, blocks, i0, least(g.m, i0 + chunk), item / chunks * kGroup,
                      panels + slot * panel_size, sums + slot * sums_size);
    });
  });
}

// The same on AMX tiles. A band of 32 rows meets panels of 32 columns, kTileWords at a time, so that the band's words
// stay in the nearest cache while the panels of an item, in the second-level one, pass by. Sums wait in `sums`.
void multiply_tiles(const Gemm& g, const Rows& a, const uint32_t* panels, int64_t words, int64_t w0, int64_t w1,
                    int64_t i0, int64_t i1, int64_t j0, int64_t cols, float* sums, int64_t stride) {
  Tiles tiles;
  const Streamed streamed = streamed_by(g);
  const int64_t span = w1 - w0, blocks = span ? (span + kTileWords - 1) / kTileWords : 1;
  const int64_t size = up((span + blocks - 1) / blocks, 16);
  for (int64_t i = i0; i < i1; i += 32) {
    const int64_t rows = least(32, i1 - i);
    if (w1 == words) fetch(g, i, j0, rows, cols);
    float* acc = span == words ? sums : sums + (i - i0) * stride;
    for (int64_t w = w0; w == w0 || w < w1; w += size)
      for (int64_t j = 0; j < cols; j += kTileWidth)
        tiles.product(rows, up(least(kTileWidth, cols - j), 16), least(size, w1 - w), a.data + i * a.bytes + w * 4,
                      a.bytes, reinterpret_cast<const char*>(panels + j * span + (w - w0) * kTileWidth), kTileWidth * 4,
                      acc + j, stride * 4, w > 0);
    if (w1 == words) finish(g, acc, stride, i, j0, rows, cols, streamed);
  }
  streamed.end();
}

void large_tiles(Context& ctx, const Gemm& g) {
  const int64_t words = (g.k + 1) / 2;
  const int64_t threads = threads_for(ctx, g);
  const uint32_t* frozen = frozen_panels(ctx, g, words, 1);

  // Columns of an item: what fits, but enough items for all threads.
  int64_t most = words ? kTileBytes / (4 * words) / kGroup * kGroup : kTileColumns;
  most = least(kTileColumns, most_of(kGroup, least(most, up((g.n + threads - 1) / threads, kGroup))));
  const int64_t spans = words ? (words * most * 4 + kTileBytes - 1) / kTileBytes : 1;
  const int64_t width = up((g.n + (g.n + most - 1) / most - 1) / ((g.n + most - 1) / most), kGroup);
  const int64_t groups = (g.n + width - 1) / width;
  const int64_t chunk = chunk_rows(g.m, groups, threads, kChunkRows, 32, frozen ? 2 : 400);
  const int64_t chunks = (g.m + chunk - 1) / chunk, items = groups * chunks, slots = least(threads, items);

  Workspace::Frame frame(ctx.workspace);
  const int64_t panel_size = frozen ? 0 : (words + spans - 1) / spans * width;
  const int64_t stride = width + 16, sums_size = (spans > 1 && !frozen ? chunk : 32) * stride;
  uint32_t* panels = frame.take<uint32_t>(slots * panel_size);
  float* sums = frame.take<float>(slots * sums_size);
  const Rows a = left_rows(ctx, frame, g, threads, false);
  with_packer(g.b.data, g.b.type, g.b.ld, g.b_transposed, g.compute, [&](const auto& packer) {
    share(ctx, slots, items, [&](int64_t slot, int64_t item) {
      const int64_t i0 = item % chunks * chunk, i1 = least(g.m, i0 + chunk);
      const int64_t j0 = item / chunks * width, cols = least(width, g.n - j0);
      float* to = sums + slot * sums_size;
      if (frozen) return multiply_tiles(g, a, frozen + j0 * words, words, 0, words, i0, i1, j0, cols, to, stride);
      uint32_t* mine = panels + slot * panel_size;
      for (int64_t s = 0; s < spans; s++) {
        const int64_t w0 = words * s / spans, w1 = words * (s + 1) / spans;
        for (int64_t j = 0; j < cols; j += kGroup) packer.panels(mine + j * (w1 - w0), j0 + j, g.n, w0, w1, g.k);
        multiply_tiles(g, a, mine, words, w0, w1, i0, i1, j0, cols, to, stride);
      }
    });
  });
}

// Products of one left operand, `a` as rows of words, with weights that are read as they are, in one pass: weight(g) is
// one of the packers or `Quantized`; change(g, w, acc, j0, cols) may change the sums of columns [j0, j0 + cols).
template <class Weight, class Change>
void few_rows(Context& ctx, Workspace::Frame& frame, const Gemm* products, int64_t count, const Rows& a,
              const Weight& weight, const Change& change) {
  Gemm all = products[0];
  const int64_t m = all.m;
  for (int64_t p = 1; p < count; p++) all.n += products[p].n;
  const int64_t threads = threads_for(ctx, all);
  int64_t width = kGroup, items = 0;
  while (width > 16 && all.n < width * threads * 8) width /= 2;
  for (int64_t p = 0; p < count; p++) items += (products[p].n + width - 1) / width;
  float* sums = frame.take<float>(threads * m * kGroup);
  share_ranges(ctx, threads, items, [&](int64_t slot, int64_t item) {
    const Gemm* g = products;
    for (int64_t own; item >= (own = (g->n + width - 1) / width); g++) item -= own;
    const auto w = weight(*g);
    const int64_t j0 = item * width, cols = least(width, g->n - j0);
    float* acc = sums + slot * m * kGroup;
    for (int64_t j = 0; j < cols; j += kDotColumns)
      for (int64_t i = 0; i < m;) {
        const int64_t parts = (m - i + kDotRows - 1) / kDotRows, rows = (m - i + parts - 1) / parts;
        dot_rows(rows, reinterpret_cast<const uint32_t*>(a.data + i * a.bytes), a.bytes / 4, w, j0 + j,
                 least(kDotColumns, cols - j), g->k, acc + i * kGroup + j);
        i += rows;
      }
    change(*g, w, acc, j0, cols);
    finish(*g, acc, kGroup, 0, j0, m, cols, {});
  });
}

// Row i of the left operand as `rows16` gives it, for every i.
template <class Rows16>
void each_row16(Context& ctx, const Gemm& g, const Rows16& rows16) {
  with_type(g.a.type, [&](auto* type) {
    const auto* x = static_cast<const std::remove_pointer_t<decltype(type)>*>(g.a.data);
    share(ctx, g.m > kDotRows ? ctx.threads() : 1, g.m, [&](int64_t, int64_t i) { rows16(i, x + i * g.a.ld); });
  });
}

// Products with weights in q8. What multiplies a whole column, or row, of them comes behind the sums.
void quantized(Context& ctx, const Gemm* products, int64_t count) {
  Workspace::Frame frame(ctx.workspace);
  const Gemm& first = products[0];
  const int64_t m = first.m, k = first.k;
  const auto weight = [](const Gemm& g) {
    return Quantized{static_cast<const int8_t*>(g.b.data), g.b.ld + kScaleBytes};
  };
  const auto scale = [k, m](const Gemm&, const auto& w, float* acc, int64_t j0, int64_t cols) {
    float scales[kGroup];
    for (int64_t j = 0; j < cols; j++) scales[j] = q8_scale(w.data + (j0 + j) * w.ld, k);
    for (int64_t i = 0; i < m; i++)
      for (int64_t j = 0; j < cols; j++) acc[i * kGroup + j] *= scales[j];
  };
  if (first.compute == DType::f32)
    return few_rows(ctx, frame, products, count, left_rows(ctx, frame, first, 1, true), weight, scale);
#if defined(__AVX512VNNI__)
  if (k <= kMostWhole) {
    const int64_t stride = up(k, 32) + 32;
    int16_t* rows = frame.take<int16_t>(m * stride);
    float* row_scales = frame.take<float>(m);
    each_row16(ctx, first, [&](int64_t i, const auto* x) { row_scales[i] = whole16(x, k, rows + i * stride); });
    return few_rows(
        ctx, frame, products, count, {reinterpret_cast<const char*>(rows), stride * 2},
        [](const Gemm& g) {
          return QuantizedWhole{static_cast<const int8_t*>(g.b.data), g.b.ld + kScaleBytes};
        },
        [&](const Gemm& g, const QuantizedWhole& w, float* acc, int64_t j0, int64_t cols) {
          for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < cols; j++) acc[i * kGroup + j] *= row_scales[i];
          scale(g, w, acc, j0, cols);
        });
  }
#endif
  const int64_t stride = up(k, 16) + 16;
  float* rows = frame.take<float>(m * stride);
  each_row16(ctx, first, [&](int64_t i, const auto* x) {
    rounded16(x, k, rows + i * stride);
    std::memset(rows + i * stride + k, 0, size_t(stride - k) * 4);
  });
  few_rows(ctx, frame, products, count, {reinterpret_cast<const char*>(rows), stride * 4}, weight, scale);
}

// Of products with so few rows that reading the weight is all.
void small(Context& ctx, const Gemm* products, int64_t count) {
  const Gemm& g = products[0];
  if (g.b.type == DType::q8) return quantized(ctx, products, count);
  Workspace::Frame frame(ctx.workspace);
  with_packer(g.b.data, g.b.type, g.b.ld, true, g.compute, [&](const auto& packer) {
    using P = std::decay_t<decltype(packer)>;
    const auto weight = [](const Gemm& one) { return P{static_cast<decltype(P::data)>(one.b.data), one.b.ld, true}; };
    few_rows(ctx, frame, products, count, left_rows(ctx, frame, g, 1, true), weight,
             [](const Gemm&, const P&, float*, int64_t, int64_t) {});
  });
}

bool is_small(const Gemm& g) {
  if (g.b.type == DType::q8) return true;
  // A tile multiplies 16 rows in the time of one.
  const int64_t few_frozen = kAmx && g.compute == DType::bf16 ? 1 : kSmallFrozenRows;
  const bool frozen = g.b_storage && g.b_storage->frozen;
  return g.b_transposed && g.m <= (frozen ? few_frozen : kSmallRows) && g.k > 0;
}

}  // namespace

void gemm(Context& ctx, const Gemm& g) {
  if (g.m <= 0 || g.n <= 0) return;
  if (is_small(g))
    small(ctx, &g, 1);
  else if (kAmx && g.compute == DType::bf16)
    large_tiles(ctx, g);
  else if (kAmx)
    large_thirds(ctx, g);
  else if (kDot && g.compute == DType::bf16)
    large<kDot>(ctx, g);
  else
    large<false>(ctx, g);
}

void gemm(Context& ctx, const Gemm* products, int64_t count) {
  const Gemm& first = products[0];
  bool together = first.m > 0;
  for (int64_t p = 0; p < count; p++) {
    const Gemm& g = products[p];
    together = together && is_small(g) && g.b.type == first.b.type && g.compute == first.compute && g.n > 0;
  }
  if (together) return small(ctx, products, count);
  for (int64_t p = 0; p < count; p++) gemm(ctx, products[p]);
}

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
