// The register tile of each instruction set:
//   acc[r, j] (+)= Σ_p a[r, p] · b[p, j]        r < MR, j < NV vectors
// `a` is rows of words along k, `b` a packed panel [k][kNR] of words. A word is 4 bytes: one float, or (kDot) a pair of
// bf16 that are neighbours along k, multiplied by vdpbf16ps. acc rows are kGroup floats apart.
// `next` is where the following tile's rows begin: they are fetched ahead, since every tile starts new streams.
#pragma once
#include <cstdint>
#include <cstring>

#include "cpu/simd/amx.h"
#include "cpu/simd/vec.h"

namespace dw {
namespace cpu {
namespace DW_ISA {

constexpr int kGroup = 64;  // columns that are worked on together: one panel or several
#if defined(__AVX512F__)
constexpr int kMR = 6, kNR = 64;
#elif defined(__AVX2__)
constexpr int kMR = 6, kNR = 16;
#else
constexpr int kMR = 4, kNR = 8;
#endif
constexpr int kVectors = kNR / kLanes;
#if defined(__AVX512BF16__)
constexpr bool kDot = true;
#else
constexpr bool kDot = false;
#endif
// Columns of a panel: for the register tile, or for AMX tiles.
constexpr int kTileWidth = 32;
template <bool Pairs>
constexpr int kWidth = Pairs && kAmx ? kTileWidth : kNR;

namespace {

#if defined(__AVX2__)
template <int MR>
inline void fetch_rows(const char* p, int64_t lda) {
#pragma GCC unroll 6
  for (int r = 0; r < MR; r++) _mm_prefetch(p + r * lda, _MM_HINT_T0);
}
#endif

#if defined(__AVX512F__)

inline __m512 broadcast(const char* p) {
  float f;
  std::memcpy(&f, p, 4);
  return _mm512_set1_ps(f);
}

template <bool Pairs>
inline __m512 multiply_add(__m512 a, __m512 b, __m512 c) {
#if defined(__AVX512BF16__)
  if (Pairs) return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b);
#endif
  return _mm512_fmadd_ps(a, b, c);
}

template <bool Pairs, int MR, int NV>
void tile(const char* a, int64_t lda, const char* b, int64_t kw, float* acc, bool add, const char* next) {
  __m512 c[MR][NV];
#pragma GCC unroll 6
  for (int r = 0; r < MR; r++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) c[r][v] = add ? _mm512_loadu_ps(acc + r * kGroup + v * 16) : _mm512_setzero_ps();
  const int64_t lda2 = 2 * lda;
  const char* a3 = a + 3 * lda;
  auto step = [&]() __attribute__((always_inline)) {
    __m512 bv[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) bv[v] = _mm512_loadu_ps(b + v * 64);
#pragma GCC unroll 6
    for (int r = 0; r < MR; r++) {
      const char* row = r < 3 ? a : a3;
      const __m512 av = broadcast(r % 3 == 0 ? row : r % 3 == 1 ? row + lda : row + lda2);
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) c[r][v] = multiply_add<Pairs>(av, bv[v], c[r][v]);
    }
    a += 4;
    a3 += 4;
    b += kNR * 4;
  };
  int64_t p = 0;
  for (; p + 4 <= kw; p += 4) {
    if (p % 16 == 0) {
      fetch_rows<MR>(next, lda);
      next += 64;
    }
#pragma GCC unroll 4
    for (int u = 0; u < 4; u++) step();
  }
  for (; p < kw; p++) step();
#pragma GCC unroll 6
  for (int r = 0; r < MR; r++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) _mm512_storeu_ps(acc + r * kGroup + v * 16, c[r][v]);
}

#elif defined(__AVX2__)

template <bool Pairs, int MR, int NV>
void tile(const char* a, int64_t lda, const char* b, int64_t kw, float* acc, bool add, const char* next) {
  __m256 c[MR][NV];
#pragma GCC unroll 6
  for (int r = 0; r < MR; r++)
#pragma GCC unroll 2
    for (int v = 0; v < NV; v++) c[r][v] = add ? _mm256_loadu_ps(acc + r * kGroup + v * 8) : _mm256_setzero_ps();
  const int64_t lda2 = 2 * lda;
  while (kw > 0) {
    const int64_t steps = kw < 16 ? kw : 16;
    kw -= steps;
    fetch_rows<MR>(next, lda);
    next += 64;
    const char* a3 = a + 3 * lda;
    for (int64_t p = 0; p < steps; p++) {
      __m256 bv[NV];
#pragma GCC unroll 2
      for (int v = 0; v < NV; v++) bv[v] = _mm256_loadu_ps(reinterpret_cast<const float*>(b + v * 32));
#pragma GCC unroll 6
      for (int r = 0; r < MR; r++) {
        const char* row = r < 3 ? a : a3;
        const __m256 av = _mm256_broadcast_ss(reinterpret_cast<const float*>(r % 3 == 0   ? row
                                                                             : r % 3 == 1 ? row + lda
                                                                                          : row + lda2));
#pragma GCC unroll 2
        for (int v = 0; v < NV; v++) c[r][v] = _mm256_fmadd_ps(av, bv[v], c[r][v]);
      }
      a += 4;
      a3 += 4;
      b += kNR * 4;
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < MR; r++)
#pragma GCC unroll 2
    for (int v = 0; v < NV; v++) _mm256_storeu_ps(acc + r * kGroup + v * 8, c[r][v]);
}

#else

// One row of the tile as a plain array of kNR: the compiler keeps it in vectors.
template <bool Pairs, int MR, int NV>
void tile(const char* a, int64_t lda, const char* b, int64_t kw, float* acc, bool add, const char*) {
  float c[MR][kNR];
  for (int r = 0; r < MR; r++)
    for (int j = 0; j < kNR; j++) c[r][j] = add ? acc[r * kGroup + j] : 0.0f;
  for (int64_t p = 0; p < kw; p++) {
    const float* bp = reinterpret_cast<const float*>(b) + p * kNR;
#pragma GCC unroll 4
    for (int r = 0; r < MR; r++) {
      const float av = *reinterpret_cast<const float*>(a + r * lda + p * 4);
#pragma GCC unroll 8
      for (int j = 0; j < kNR; j++) c[r][j] += av * bp[j];
    }
  }
  for (int r = 0; r < MR; r++)
    for (int j = 0; j < kNR; j++) acc[r * kGroup + j] = c[r][j];
}

#endif

using Tile = void (*)(const char*, int64_t, const char*, int64_t, float*, bool, const char*);

#define DW_TILES(P, M)                                                                                   \
  {                                                                                                      \
    tile<P, M, 1>, tile<P, M, (kVectors < 2 ? kVectors : 2)>, tile<P, M, (kVectors < 3 ? kVectors : 3)>, \
        tile<P, M, (kVectors < 4 ? kVectors : 4)>                                                        \
  }
// The tile for `rows` rows (1..kMR) and `vectors` vectors (1..kVectors).
template <bool Pairs>
Tile pick_tile(int64_t rows, int64_t vectors) {
  static constexpr Tile kTiles[6][4] = {DW_TILES(Pairs, 1), DW_TILES(Pairs, 2), DW_TILES(Pairs, 3),
                                        DW_TILES(Pairs, 4), DW_TILES(Pairs, 5), DW_TILES(Pairs, 6)};
  return kTiles[rows - 1][vectors - 1];
}
#undef DW_TILES

}  // namespace
}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
