// Products of bf16 on AMX tiles: C[rows, columns] (+)= A · B, where words are pairs of bf16 that are neighbours along
// k, as in gemm/tile.h. A tile holds 16 rows of 64 bytes; C's take 32 × 32 at a time.
// Products of floats, in three parts each, too: see gemm/pack_thirds.h.
#pragma once
#include <cstdint>
#if defined(__AMX_BF16__)
#include <immintrin.h>
#endif

namespace dw {
namespace cpu {
namespace DW_ISA {
namespace {

// Words of one part of 32 rows, or of 32 columns, by 16 words.
constexpr int64_t kThirdWords = 32 * 16;

#if defined(__AMX_BF16__)
constexpr bool kAmx = true;

// The tiles of one thread, from here to the end of the scope.
class Tiles {
 public:
  Tiles() = default;
  Tiles(const Tiles&) = delete;
  ~Tiles() {
    if (words_) _tile_release();
  }

  // A: rows of `words` words, B: `words` rows of `columns` words, C: fp32; distances in bytes. Columns come in 16s.
  void product(int64_t rows, int64_t columns, int64_t words, const char* a, int64_t lda, const char* b, int64_t ldb,
               float* c, int64_t ldc, bool add) {
    for (int64_t i = 0; i < rows; i += 32)
      up_to_32_rows<1>(rows - i < 32 ? rows - i : 32, columns, words, {a + i * lda, lda, 0, 64}, {b, ldb, 0, 16 * ldb},
                       at(c, i * ldc), ldc, add);
  }

  // Of floats in three parts: at most 32 rows with a panel of 32 columns, both as ThirdsPacker lays
  // them.
  void product_of_thirds(int64_t rows, int64_t columns, int64_t words, const uint32_t* a, const uint32_t* b, float* c,
                         int64_t ldc, bool add) {
    constexpr int64_t kPart = kThirdWords * 4, kStep = 3 * kPart;
    up_to_32_rows<3>(rows, columns, words, {reinterpret_cast<const char*>(a), 64, kPart, kStep},
                     {reinterpret_cast<const char*>(b), 128, kPart, kStep}, c, ldc, add);
  }

 private:
  int64_t rows_ = 0, words_ = 0;

  // Where an operand's tiles lie: bytes from row to row of a tile, from part to part, and to the next 16 words.
  struct Operand {
    const char* data;
    int64_t row, part, step;
  };

  static float* at(float* c, int64_t bytes) { return reinterpret_cast<float*>(reinterpret_cast<char*>(c) + bytes); }

  // Tiles 0..3: C; 4, 5: A; 6, 7: B.
  void shape(int64_t rows, int64_t words) {
    if (rows == rows_ && words == words_) return;
    rows_ = rows, words_ = words;
    const uint8_t upper = uint8_t(rows < 16 ? rows : 16), lower = uint8_t(rows - upper), deep = uint8_t(words);
    const uint8_t height[8] = {upper, upper, lower, lower, upper, lower, deep, deep};
    struct alignas(64) {
      uint8_t palette = 1, start = 0, zero[14] = {};
      uint16_t bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    for (int i = 0; i < 8; i++) {
      config.rows[i] = height[i];
      config.bytes[i] = height[i] == 0 ? 0 : i == 4 || i == 5 ? uint16_t(4 * words) : 64;
    }
    // GCC 12 takes the intrinsic to read 8 bytes and may leave out the other stores.
    __asm__ volatile("" : : "r"(&config) : "memory");
    _tile_loadconfig(&config);
  }

  template <int kParts>
  void up_to_32_rows(int64_t rows, int64_t columns, int64_t words, Operand a, Operand b, float* c, int64_t ldc,
                     bool add) {
    const int64_t steps = words / 16, tail = words % 16;
    if (steps || !add) {
      shape(rows, 16);
      band<kParts>(rows, columns, steps, a, b, c, ldc, add);
    }
    if (tail) {
      shape(rows, tail);
      a.data += steps * a.step, b.data += steps * b.step;
      band<kParts>(rows, columns, 1, a, b, c, ldc, true);
    }
  }

  template <int kParts>
  static void band(int64_t rows, int64_t columns, int64_t steps, Operand a, Operand b, float* c, int64_t ldc,
                   bool add) {
    int64_t j = 0;
    for (; j + 32 <= columns; j += 32, b.data += 128)
      rows > 16 ? square<kParts, true, true>(steps, a, b, c + j, ldc, add)
                : square<kParts, false, true>(steps, a, b, c + j, ldc, add);
    if (j < columns)
      rows > 16 ? square<kParts, true, false>(steps, a, b, c + j, ldc, add)
                : square<kParts, false, false>(steps, a, b, c + j, ldc, add);
  }

  template <int kParts, bool kTall, bool kWide>
  static void square(int64_t steps, Operand a, Operand b, float* c, int64_t ldc, bool add) {
    float* lower = at(c, 16 * ldc);
    if (add) {
      _tile_loadd(0, c, ldc);
      if (kWide) _tile_loadd(1, c + 16, ldc);
      if (kTall) _tile_loadd(2, lower, ldc);
      if (kTall && kWide) _tile_loadd(3, lower + 16, ldc);
    } else {
      _tile_zero(0);
      if (kWide) _tile_zero(1);
      if (kTall) _tile_zero(2);
      if (kTall && kWide) _tile_zero(3);
    }
    const auto left = [&](int part) __attribute__((always_inline)) {
      _tile_loadd(4, a.data + part * a.part, a.row);
      if (kTall) _tile_loadd(5, a.data + part * a.part + 16 * a.row, a.row);
    };
    const auto right = [&](int part) __attribute__((always_inline)) {
      _tile_loadd(6, b.data + part * b.part, b.row);
      if (kWide) _tile_loadd(7, b.data + part * b.part + 64, b.row);
    };
    const auto multiply = []() __attribute__((always_inline)) {
      _tile_dpbf16ps(0, 4, 6);
      if (kWide) _tile_dpbf16ps(1, 4, 7);
      if (kTall) _tile_dpbf16ps(2, 5, 6);
      if (kTall && kWide) _tile_dpbf16ps(3, 5, 7);
    };
    for (int64_t s = 0; s < steps; s++, a.data += a.step, b.data += b.step) {
      if (kParts == 3) {
        left(2), right(0), multiply();
        left(1), multiply();
        right(1), multiply();
        left(0), multiply();
        right(2), multiply();
        right(0), multiply();
        continue;
      }
      right(0), left(0), multiply();
    }
    _tile_stored(0, c, ldc);
    if (kWide) _tile_stored(1, c + 16, ldc);
    if (kTall) _tile_stored(2, lower, ldc);
    if (kTall && kWide) _tile_stored(3, lower + 16, ldc);
  }
};

#else
constexpr bool kAmx = false;

struct Tiles {
  void product(int64_t, int64_t, int64_t, const char*, int64_t, const char*, int64_t, float*, int64_t, bool) {}
  void product_of_thirds(int64_t, int64_t, int64_t, const uint32_t*, const uint32_t*, float*, int64_t, bool) {}
};
#endif

}  // namespace
}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
