// Packing the operands of attention's products; their forms stand in tile.h.
#pragma once
#include "cpu/attention/tile.h"

namespace dw {
namespace cpu {
namespace DW_ISA {
namespace {

// One head of a tensor [B, T, D]: `rows` rows of `width` elements, `ld` apart.
template <class T>
struct Head {
  const T* data;
  int64_t ld, rows, width;
  T at(int64_t r, int64_t c) const { return r < rows && c < width ? data[r * ld + c] : T{}; }
};

// Rows [from, from + count) in A form; rows and columns that do not exist are 0.
template <class Kind, class T>
void pack_rows(const Head<T>& x, int64_t from, int64_t count, int64_t stride, typename Kind::Unit* dst) {
  constexpr int64_t kPer = Kind::kPer;
  for (int64_t r = 0; r < count; r++) {
    const int64_t row = from + r;
    const T* p = x.data + row * x.ld;
    typename Kind::Unit* d = dst + r * stride;
    const int64_t whole = row < x.rows ? x.width / kPer : 0;
    if (sizeof(T) * kPer == 4)
      std::memcpy(d, p, size_t(whole) * 4);
    else
      for (int64_t u = 0; u < whole; u++) d[u] = Kind::unit(p[u * kPer], p[u * kPer + kPer - 1]);
    for (int64_t u = whole; u < stride; u++) d[u] = Kind::unit(x.at(row, u * kPer), x.at(row, u * kPer + 1));
  }
}

template <class Kind, class T>
void pack_panels(const Head<T>& x, typename Kind::Unit* dst) {
  constexpr int64_t kPer = Kind::kPer;
  const int64_t depth = (x.width + kPer - 1) / kPer;
  for (int64_t p = 0; p < x.rows; p += kCols, dst += depth * kCols) {
    int64_t done = 0;  // units of every row that are in place
#if defined(__AVX512F__)
    if (sizeof(T) * kPer == 4 && p + kCols <= x.rows)
      for (; (done + 16) * kPer <= x.width; done += 16)
        for (int64_t r = 0; r < kCols; r += 16)
          transpose_words(reinterpret_cast<const char*>(x.data + (p + r) * x.ld + done * kPer),
                          x.ld * int64_t(sizeof(T)), reinterpret_cast<char*>(dst + done * kCols + r), kCols * 4);
#endif
    for (int64_t u = done; u < depth; u++)
      for (int64_t r = 0; r < kCols; r++)
        dst[u * kCols + r] = Kind::unit(x.at(p + r, u * kPer), x.at(p + r, u * kPer + 1));
  }
}

#if defined(__AVX512F__)
// 16 words: elements of 2 bytes of one row below those of the next.
inline __m512i pairs_of(const void* first, const void* second) {
  const __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(first)));
  const __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(second)));
  return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}
#endif

template <class Kind, class T>
void pack_stack(const Head<T>& x, typename Kind::Unit* dst) {
  constexpr int64_t kPer = Kind::kPer;
  const int64_t padded = round_up(x.width, kLanes);
  for (int64_t r = 0; r < x.rows; r += kPer, dst += padded) {
    const T* first = x.data + r * x.ld;
    if (r + kPer <= x.rows) {
      const T* second = first + (kPer - 1) * x.ld;
      int64_t c = 0;
#if defined(__AVX512F__)
      if (sizeof(T) * kPer == 4 && kPer == 2)
        for (; c + 16 <= x.width; c += 16) _mm512_storeu_si512(dst + c, pairs_of(first + c, second + c));
#endif
      for (; c < x.width; c++) dst[c] = Kind::unit(first[c], second[c]);
    } else {
      for (int64_t c = 0; c < x.width; c++) dst[c] = Kind::unit(first[c], T{});
    }
    for (int64_t c = x.width; c < padded; c++) dst[c] = 0;
  }
}

}  // namespace
}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
