// Products of bf16 on AMX tiles: C[rows, columns] (+)= A · B, where words are pairs of bf16 that are neighbours along
// k, as in gemm_kernels.h. A tile holds 16 rows of 64 bytes; C's take 32 × 32 at a time.
#pragma once
#include <cstdint>
#if defined(__AMX_BF16__)
#include <immintrin.h>
#endif

namespace dw {
namespace cpu {
namespace DW_ISA {
namespace {

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
    const int64_t steps = words / 16, tail = words % 16;
    for (int64_t i = 0; i < rows; i += 32) {
      const int64_t count = rows - i < 32 ? rows - i : 32;
      const char* ai = a + i * lda;
      float* ci = at(c, i * ldc);
      if (steps || !add) {
        shape(count, 16);
        band(count, columns, steps, ai, lda, b, ldb, ci, ldc, add);
      }
      if (tail) {
        shape(count, tail);
        band(count, columns, 1, ai + steps * 64, lda, b + steps * 16 * ldb, ldb, ci, ldc, true);
      }
    }
  }

 private:
  int64_t rows_ = 0, words_ = 0;

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

  static void band(int64_t rows, int64_t columns, int64_t steps, const char* a, int64_t lda, const char* b, int64_t ldb,
                   float* c, int64_t ldc, bool add) {
    int64_t j = 0;
    for (; j + 32 <= columns; j += 32)
      rows > 16 ? square<true, true>(steps, a, lda, b + j * 4, ldb, c + j, ldc, add)
                : square<false, true>(steps, a, lda, b + j * 4, ldb, c + j, ldc, add);
    if (j < columns)
      rows > 16 ? square<true, false>(steps, a, lda, b + j * 4, ldb, c + j, ldc, add)
                : square<false, false>(steps, a, lda, b + j * 4, ldb, c + j, ldc, add);
  }

  template <bool kTall, bool kWide>
  static void square(int64_t steps, const char* a, int64_t lda, const char* b, int64_t ldb, float* c, int64_t ldc,
                     bool add) {
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
    for (int64_t s = 0; s < steps; s++, a += 64, b += 16 * ldb) {
      _tile_loadd(6, b, ldb);
      _tile_loadd(4, a, lda);
      _tile_dpbf16ps(0, 4, 6);
      if (kWide) {
        _tile_loadd(7, b + 64, ldb);
        _tile_dpbf16ps(1, 4, 7);
      }
      if (kTall) {
        _tile_loadd(5, a + 16 * lda, lda);
        _tile_dpbf16ps(2, 5, 6);
        if (kWide) _tile_dpbf16ps(3, 5, 7);
      }
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
};
#endif

}  // namespace
}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
