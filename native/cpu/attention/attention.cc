// Attention, forward; the formulas stand in reference/attention.cc. Tiled with a running maximum and sum (Milakov and
// Gimelshein 2018; Dao et al. 2022): per block of queries, S = Q·Kᵀ for a block of keys, P = exp(S − max), O = O·α +
// P·V. A few queries (decoding) take another way: keys and values are read once, in the order in which they lie in
// memory.
#include "ops/attention.h"

#include <type_traits>

#include "cpu/attention/few.h"
#include "cpu/attention/pack.h"
#include "cpu/isa.h"

namespace dw {
namespace cpu {
namespace DW_ISA {

namespace {

constexpr int64_t kQueryBlock = 96;                // a multiple of kRows after each halving down to 24
constexpr int64_t kPackLimit = int64_t(16) << 20;  // words of packed keys and values held at a time

// Queries and keys whose scores are worked on together, in the nearest cache; keys are a multiple of kCols. Rows of
// scores a power of two apart would share the cache's sets.
template <class Kind>
constexpr int64_t kBand = kAmx && Kind::kPer == 2 ? 32 : 24;
template <class Kind>
constexpr int64_t kKeyBlock = kAmx && Kind::kPer == 2 ? 256 : 128;
template <class Kind>
constexpr int64_t kScoreStride = kKeyBlock<Kind> + 16;

inline void store_units(float* p, Vec v, Plain) { store_vec(p, v); }
#if defined(__AVX512BF16__)
inline void store_units(float* p, Vec v, Pairs) {
  const __m256bh h = _mm512_cvtneps_pbh(__m512(v));
  std::memcpy(p, &h, sizeof h);
}
#endif

// The largest of each of up to kLanes rows of s; columns is a multiple of kCols.
inline Vec largest_of_rows(const float* s, int64_t stride, int64_t rows, int64_t columns) {
  alignas(64) float parts[kLanes * kLanes] = {};
  for (int64_t i = 0; i < rows; i++, s += stride) {
    Vec high = load_vec(s), high1 = load_vec(s + kLanes);
    for (int64_t j = 2 * kLanes; j < columns; j += 2 * kLanes) {
      high = max_vec(high, load_vec(s + j));
      high1 = max_vec(high1, load_vec(s + j + kLanes));
    }
    store_vec(parts + i * kLanes, max_vec(high, high1));
  }
#if defined(__AVX512F__)
  alignas(64) float turned[kLanes * kLanes];
  transpose_words(reinterpret_cast<const char*>(parts), kLanes * 4, reinterpret_cast<char*>(turned), kLanes * 4);
  Vec high = load_vec(turned);
  for (int j = 1; j < kLanes; j++) high = max_vec(high, load_vec(turned + j * kLanes));
  return high;
#else
  Vec high{};
  for (int64_t i = 0; i < rows; i++) high[i] = largest(load_vec(parts + i * kLanes));
  return high;
#endif
}

// Scores S of a band become P = 2^(scale · (S − top)) in place (as units), where top is the largest so far: that of S,
// so that huge scores that are near each other differ exactly. alpha is the factor for what was summed before; sum
// holds kLanes parts of each row. top can be written up to kLanes beyond the rows.
template <class Kind>
void softmax_band(float* s, int64_t rows, int64_t columns, float scale, float* top, float* sum, float* alpha) {
  constexpr int kDegree = Kind::kPer == 2 ? 4 : 6;
  constexpr int64_t kStride = kScoreStride<Kind>;
  for (int64_t i = 0; i < rows; i += kLanes) {
    const int64_t count = rows - i < kLanes ? rows - i : kLanes;
    const Vec before = load_vec(top + i);
    const Vec now = max_vec(largest_of_rows(s + i * kStride, kStride, count, columns), before);
    const Vec by = exp2_vec((before - now) * splat(scale));
    for (int64_t r = 0; r < count; r++) {
      top[i + r] = now[r];
      alpha[i + r] = by[r];
    }
  }
  for (int64_t i = 0; i < rows; i++, s += kStride, sum += kLanes) {
    const Vec now = splat(top[i]);
    Vec part = load_vec(sum) * splat(alpha[i]), part1{};
    for (int64_t j = 0; j < columns; j += 2 * kLanes) {
      const Vec p = exp2_vec<kDegree>((load_vec(s + j) - now) * splat(scale));
      const Vec p1 = exp2_vec<kDegree>((load_vec(s + j + kLanes) - now) * splat(scale));
      part += p;
      part1 += p1;
      store_units(s + j / Kind::kPer, p, Kind());
      store_units(s + (j + kLanes) / Kind::kPer, p1, Kind());
    }
    store_vec(sum, part + part1);
  }
}

template <class Kind>
int64_t scratch_of_block(int64_t depth, int64_t padded) {
  return kBand<Kind> * kScoreStride<Kind> + kQueryBlock * (padded + kLanes + 2 + depth) + kLanes;
}

template <class Kind, class T, class O>
void query_block(const Shape& z, const Head<T>& q, int64_t from, int64_t count, const typename Kind::Unit* keys,
                 const typename Kind::Unit* values, float* scratch, O* o, float* lse) {
  using Unit = typename Kind::Unit;
  constexpr bool kTiles = kAmx && Kind::kPer == 2;
  constexpr int64_t kStride = kScoreStride<Kind>;
  const int64_t depth = (z.width + Kind::kPer - 1) / Kind::kPer, padded = round_up(z.width, kLanes);
  const int64_t rows = round_up(count, kRows);
  float* s = scratch;
  float* sum_o = s + kBand<Kind> * kStride;
  float *sum = sum_o + kQueryBlock * padded, *top = sum + kQueryBlock * kLanes;
  float* alpha = top + kQueryBlock + kLanes;
  Unit* a = reinterpret_cast<Unit*>(alpha + kQueryBlock);
  pack_rows<Kind>(q, from, rows, depth, a);
  for (int64_t i = 0; i < kQueryBlock + kLanes; i++) top[i] = -INFINITY;
  for (int64_t i = 0; i < rows; i++) alpha[i] = 0;
  for (int64_t i = 0; i < rows * padded; i++) sum_o[i] = 0;
  for (int64_t i = 0; i < rows * kLanes; i++) sum[i] = 0;
  const float scale = z.scale * kLog2E;
  Tiles tiles;
  for (int64_t r = 0; r < count; r += kBand<Kind>) {
    const int64_t band = count - r < kBand<Kind> ? count - r : kBand<Kind>;
    const int64_t height = kTiles ? band : round_up(band, kRows), visible = z.keys(from + r + band - 1);
    for (int64_t j = 0; j < visible; j += kKeyBlock<Kind>) {
      const int64_t n = visible - j < kKeyBlock<Kind> ? visible - j : kKeyBlock<Kind>, columns = round_up(n, kCols);
      times_panels<Kind>(tiles, height, columns / kCols, depth, a + r * depth, depth, keys + j * depth, s, kStride);
      for (int64_t i = 0; i < band; i++) {
        const int64_t seen = z.keys(from + r + i) - j;
        mask_from(s + i * kStride, seen < n ? seen : n, columns);
      }
      softmax_band<Kind>(s, band, columns, scale, top + r, sum + r * kLanes, alpha + r);
      times_stack<Kind, kScaleAdd, false>(tiles, height, padded, (n + Kind::kPer - 1) / Kind::kPer,
                                          reinterpret_cast<const Unit*>(s), kStride, values + j / Kind::kPer * padded,
                                          sum_o + r * padded, alpha + r);
    }
  }
  for (int64_t i = 0; i < count; i++) {
    const float all = total(load_vec(sum + i * kLanes)), inverse = 1.0f / all;
    for (int64_t c = 0; c < z.width; c++) put(o + (from + i) * z.D, c, sum_o[i * padded + c] * inverse);
    lse[from + i] = top[i] * z.scale + std::log(all);
  }
}

template <class Kind, class T, class O>
void tiled(Context& ctx, const Shape& z, const T* q, const T* k, const T* v, O* o, float* lse) {
  using Unit = typename Kind::Unit;
  const int64_t pairs = z.B * z.heads, depth = (z.width + Kind::kPer - 1) / Kind::kPer;
  const int64_t padded = round_up(z.width, kLanes);
  const int64_t key_words = round_up(z.kv_len, kCols) * depth;
  const int64_t value_words = (z.kv_len + Kind::kPer - 1) / Kind::kPer * padded;
  int64_t block = kQueryBlock;
  while (block > 24 && pairs * ((z.Tq + block - 1) / block) < 4 * ctx.threads()) block /= 2;
  const int64_t blocks = (z.Tq + block - 1) / block;
  int64_t group = kPackLimit / (key_words + value_words);
  if (group < ctx.threads()) group = ctx.threads();
  if (group > pairs) group = pairs;
  Workspace::Frame frame(ctx.workspace);
  Unit* keys = frame.take<Unit>(group * key_words);
  Unit* values = frame.take<Unit>(group * value_words);
  const int64_t scratch = scratch_of_block<Kind>(depth, padded);
  for (int64_t first = 0; first < pairs; first += group) {
    const int64_t count = pairs - first < group ? pairs - first : group;
    const auto head = [&](const T* x, int64_t pair, int64_t length, int64_t rows) {
      return Head<T>{x + pair / z.heads * length * z.D + pair % z.heads * z.width, z.D, rows, z.width};
    };
    ctx.pool.each(2 * count, [&](int64_t i) {
      const int64_t pair = first + i / 2;
      if (i % 2 == 0)
        pack_panels<Kind>(head(k, pair, z.Tk, z.kv_len), keys + i / 2 * key_words);
      else
        pack_stack<Kind>(head(v, pair, z.Tk, z.kv_len), values + i / 2 * value_words);
    });
    // Head by head, so that its keys and values stay in the second-level cache; the last queries, which see the most
    // keys when causal, go first, so that the threads finish together.
    with_scratch(ctx, count * blocks, scratch, [&](int64_t task, float* mine) {
      const int64_t pair = first + task / blocks, from = (blocks - 1 - task % blocks) * block;
      const int64_t rows = z.Tq - from < block ? z.Tq - from : block;
      query_block<Kind>(z, head(q, pair, z.Tq, z.Tq), from, rows, keys + task / blocks * key_words,
                        values + task / blocks * value_words, mine,
                        o + pair / z.heads * z.Tq * z.D + pair % z.heads * z.width, lse + pair * z.Tq);
    });
  }
}

template <class T, class O>
void run(Context& ctx, const Shape& z, const T* q, const T* k, const T* v, O* o, float* lse) {
  // From about 12 queries on it pays to pack keys and values first.
  if (z.Tq <= kFewQueries) return few_queries(ctx, z, q, k, v, o, lse);
#if defined(__AVX512BF16__)
  using Kind = std::conditional_t<sizeof(T) == sizeof(bf16), Pairs, Plain>;
#else
  using Kind = Plain;
#endif
  tiled<Kind>(ctx, z, q, k, v, o, lse);
}

}  // namespace

void attention(Context& ctx, const Attention& a) {
  const View &q = a.q, &k = a.k, &v = a.v;
  Shape z;
  z.B = q.shape[0];
  z.Tq = q.shape[1];
  z.Tk = k.shape[1];
  z.D = q.shape[2];
  z.heads = a.heads;
  z.width = z.D / z.heads;
  z.causal = a.causal;
  z.kv_len = a.kv_len;
  z.q_offset = a.q_offset;
  z.scale = 1.0f / std::sqrt(float(z.width));
  if (z.B == 0 || z.Tq == 0) return;
  with_type(q.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    with_type(a.o.dtype, [&](auto* u) {
      auto* o = a.o.as<std::remove_pointer_t<decltype(u)>>();
      float* lse = a.lse.as<float>();
      // q8 is kept for decoding only.
      if (k.dtype == DType::q8)
        few_queries(ctx, z, q.as<T>(), k.as<int8_t>(), v.as<int8_t>(), o, lse);
      else
        run(ctx, z, q.as<T>(), k.as<T>(), v.as<T>(), o, lse);
    });
  });
}

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
