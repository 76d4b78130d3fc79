// The factors of dropout, drawn side by side.
#pragma once
#include <cmath>
#include <cstring>

#include "cpu/simd/philox.h"
#include "ops/dropout.h"

namespace dw {
namespace cpu {
namespace DW_ISA {

// The factor of dropout for elements [first, first + n): 0, or 1 / (1 - p).
struct Dropout {
  explicit Dropout(const DropoutDraw& d)
      : mask(d.mask ? d.mask->as<float>() : nullptr), p(float(d.p)), step(d.step), op(d.op), seed(d.seed) {}
  const float* mask;  // explicit keep mask, or null: drawn
  float p;
  uint32_t step, op;
  uint64_t seed;
  bool any() const { return mask || p > 0; }

  void fill(float* out, int64_t first, int64_t n) const {
    const float scale = 1.0f / (1.0f - p);
    if (mask) {
      for (int64_t i = 0; i < n; i++) out[i] = mask[first + i] * scale;
      return;
    }
    constexpr int kSide = kPhiloxBlocks;
    // u ≥ p for u a multiple of 2⁻²⁴, in whole numbers.
    const int32_t least = int32_t(std::ceil(p * 16777216.0f));
    for (int64_t i = 0; i < n;) {
      const int64_t block = (first + i) / 4, skip = (first + i) % 4;
      alignas(64) uint32_t word[4][kSide];
      alignas(64) float keep[4 * kSide];
      philox_words(uint64_t(block), step, op, seed, word[0], kSide);
      for (int l = 0; l < kSide; l++)
        for (int w = 0; w < 4; w++) keep[4 * l + w] = int32_t(word[w][l] >> 8) >= least ? scale : 0.0f;
      const int64_t take = n - i < 4 * kSide - skip ? n - i : 4 * kSide - skip;
      std::memcpy(out + i, keep + skip, size_t(take) * 4);
      i += take;
    }
  }
};

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
