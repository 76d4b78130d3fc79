// Logits of a slab of tokens × up to kGroup rows, straight from the GEMM's register tile into a buffer of the
// second-level cache: acc[token][kGroup]. The head's weight is the left operand. It is read once per chunk of rows, as
// it lies where the types allow, else converted a slab at a time; the hidden rows, which every slab needs, are packed
// once per chunk.
#pragma once
#include <algorithm>

#include "cpu/gemm/pack.h"
#include "cpu/products.h"
#include "cpu/simd/amx.h"

namespace dw {
namespace cpu {
namespace DW_ISA {
namespace {

template <bool Pairs>
struct Logits {
  const View& weight;
  DType compute;
  int64_t k, words, stride;  // stride: words from row to row of a converted slab
  uint32_t* panels = nullptr;

  static int64_t least_rows(int64_t left) { return left < kMR ? left : kMR; }
  static int64_t words_of(int64_t k) { return Pairs ? (k + 1) / 2 : k; }
  static int64_t stride_of(int64_t k) {
    const int64_t s = (words_of(k) + 15) / 16 * 16;
    return s % 512 == 0 ? s + 16 : s;
  }
  static bool as_is(DType type, DType compute, int64_t k) {
    return Pairs ? type == DType::bf16 && k % 2 == 0 : type == DType::f32 && compute == DType::f32;
  }

  Logits(Workspace::Frame& frame, Context& ctx, const View& w, Block rows, int64_t n, DType type)
      : weight(w), compute(type), k(w.cols()), words(words_of(w.cols())), stride(stride_of(w.cols())) {
    const int64_t groups = (n + kGroup - 1) / kGroup;
    panels = frame.take<uint32_t>(groups * kGroup * words);
    with_packer(rows.data, rows.type, rows.ld, true, compute, [&](const auto& packer) {
      ctx.pool.each(groups, [&](int64_t i) { packer.panels(panels + i * kGroup * words, i * kGroup, n, 0, words, k); });
    });
  }

  // Rows of words of `tokens` tokens from v0; `converted` has room for tokens × stride words.
  Block left(int64_t v0, int64_t tokens, uint32_t* converted) const {
    const Block w = block_of(weight, v0);
    if (as_is(w.type, compute, k)) return {w.data, w.type, w.ld * size_of(w.type)};
    with_packer(w.data, w.type, w.ld, true, compute,
                [&](const auto& packer) { packer.rows(converted, stride, 0, tokens, k); });
    return {converted, DType::f32, stride * 4};
  }

  // `a` is what left() gave: ld in bytes. `lanes` rows of group `group`.
  void multiply(Block a, int64_t tokens, int64_t group, int64_t lanes, float* acc) const {
    constexpr int64_t kBlockWords = Pairs && kAmx ? 128 : 1024;
    const uint32_t* b = panels + group * kGroup * words;
    [[maybe_unused]] Tiles tiles;
    for (int64_t w0 = 0; w0 < words; w0 += kBlockWords) {
      const int64_t count = words - w0 < kBlockWords ? words - w0 : kBlockWords;
      if (Pairs && kAmx) {
        for (int64_t j = 0; j < lanes; j += kTileWidth)
          tiles.product(tokens, std::min<int64_t>(kTileWidth, (lanes - j + 15) / 16 * 16), count,
                        static_cast<const char*>(a.data) + w0 * 4, a.ld,
                        reinterpret_cast<const char*>(b + j * words + w0 * kTileWidth), kTileWidth * 4, acc + j,
                        kGroup * 4, w0 > 0);
        continue;
      }
      for (int64_t i = 0; i < tokens; i += kMR) {
        const int64_t rows = least_rows(tokens - i);
        const char* left_rows = static_cast<const char*>(a.data) + i * a.ld + w0 * 4;
        const char* next = i + kMR < tokens ? left_rows + kMR * a.ld : left_rows;
        for (int64_t j = 0; j < lanes; j += kNR) {
          const int64_t rest = (lanes - j + kLanes - 1) / kLanes, vectors = rest < kVectors ? rest : kVectors;
          const char* panel = reinterpret_cast<const char*>(b + j * words + w0 * kNR);
          pick_tile<Pairs>(rows, vectors)(left_rows, a.ld, panel, count, acc + i * kGroup + j, w0 > 0, next);
        }
      }
    }
    if (words == 0) std::memset(acc, 0, size_t(tokens * kGroup) * 4);
  }
};

}  // namespace
}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
