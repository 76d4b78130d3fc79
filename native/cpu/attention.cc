// Attention, forward; the formulas stand in reference/attention.cc. Tiled with a running maximum and sum (Milakov and
// Gimelshein 2018; Dao et al. 2022): per block of queries, S = Q·Kᵀ for a block of keys, P = exp(S − max), O = O·α +
// P·V. A few queries (decoding) take another way: keys and values are read once, in the order in which they lie in
// memory.
#include <type_traits>

#include "core/op.h"
#include "cpu/attention_pack.h"
#include "cpu/isa.h"

namespace dw {
namespace cpu {
namespace DW_ISA {

namespace {

constexpr int64_t kQueryBlock = 96;                // a multiple of kRows after each halving down to 24
constexpr int64_t kPackLimit = int64_t(16) << 20;  // words of packed keys and values held at a time
constexpr int64_t kFewQueries = 4;
constexpr int64_t kDecodeBlock = 64;  // keys

// Queries and keys whose scores are worked on together, in the nearest cache; keys are a multiple of kCols. Rows of
// scores a power of two apart would share the cache's sets.
template <class Kind>
constexpr int64_t kBand = kAmx && Kind::kPer == 2 ? 32 : 24;
template <class Kind>
constexpr int64_t kKeyBlock = kAmx && Kind::kPer == 2 ? 256 : 128;
template <class Kind>
constexpr int64_t kScoreStride = kKeyBlock<Kind> + 16;

struct Shape {
  int64_t B, Tq, Tk, D, heads, width, kv_len, q_offset;
  bool causal;
  float scale;
  // How many keys query i sees.
  int64_t keys(int64_t i) const {
    const int64_t n = i + q_offset + 1;
    return causal && n < kv_len ? n : kv_len;
  }
};

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

// q · k over one head.
template <class T>
inline float dot_head(const float* q, const T* k, int64_t width) {
  Vec sum{};
  int64_t c = 0;
  for (; c + kLanes <= width; c += kLanes) sum += load_vec(q + c) * widen(k + c);
  float s = total(sum);
  for (; c < width; c++) s += q[c] * get(k, c);
  return s;
}

// One head of the next four rows, into the second-level cache: they are read head by head, which the processor does not
// foresee, and the lines that the first level waits for are too few for the memory's rate.
template <class T>
inline void fetch_rows([[maybe_unused]] const T* p, [[maybe_unused]] int64_t ld, [[maybe_unused]] int64_t width) {
#if defined(__AVX2__)
  for (int j = 0; j < 4; j++, p += ld)
    for (int64_t c = 0; c < width; c += 64 / int64_t(sizeof(T)))
      _mm_prefetch(reinterpret_cast<const char*>(p + c), _MM_HINT_T1);
#endif
}

// q · k[0] .. q · k[3] over one head, k's rows ld apart, into s[0..3].
template <class T>
inline void dot_heads(const float* q, const T* k, int64_t ld, int64_t width, float* s) {
  Vec sum[4] = {};
  int64_t c = 0;
  fetch_rows(k + 4 * ld, ld, width);
  for (; c + kLanes <= width; c += kLanes) {
    const Vec y = load_vec(q + c);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) sum[j] += y * widen(k + j * ld + c);
  }
  totals(sum, s);
  for (; c < width; c++)
    for (int j = 0; j < 4; j++) s[j] += q[c] * get(k, j * ld + c);
}

// o += p[0] · v[0] + .. + p[3] · v[3] over one head, v's rows ld apart.
template <class T>
inline void add_values(const float* p, const T* v, int64_t ld, int64_t width, float* o) {
  const T *v1 = v + ld, *v2 = v1 + ld, *v3 = v2 + ld;
  fetch_rows(v + 4 * ld, ld, width);
  const Vec p0 = splat(p[0]), p1 = splat(p[1]), p2 = splat(p[2]), p3 = splat(p[3]);
  int64_t c = 0;
  for (; c + kLanes <= width; c += kLanes) {
    const Vec y = p0 * widen(v + c) + p1 * widen(v1 + c) + (p2 * widen(v2 + c) + p3 * widen(v3 + c));
    store_vec(o + c, load_vec(o + c) + y);
  }
  for (; c < width; c++) o[c] += p[0] * get(v, c) + p[1] * get(v1, c) + (p[2] * get(v2, c) + p[3] * get(v3, c));
}

// One query against n keys of a block, all heads, keys and values in the order of memory. weights is [heads,
// kDecodeBlock].
template <class T>
void decode_block(const Shape& z, const float* query, const T* k, const T* v, int64_t n, float* weights, float* top,
                  float* sum, float* out) {
  int64_t j = 0;
  for (; j + 4 <= n; j += 4)
    for (int64_t h = 0; h < z.heads; h++)
      dot_heads(query + h * z.width, k + j * z.D + h * z.width, z.D, z.width, weights + h * kDecodeBlock + j);
  for (; j < n; j++)
    for (int64_t h = 0; h < z.heads; h++)
      weights[h * kDecodeBlock + j] = dot_head(query + h * z.width, k + j * z.D + h * z.width, z.width);
  for (int64_t h = 0; h < z.heads; h++) {
    float* w = weights + h * kDecodeBlock;
    mask_from(w, n, kDecodeBlock);
    Vec high = load_vec(w), part{};
    for (j = kLanes; j < kDecodeBlock; j += kLanes) high = max_vec(high, load_vec(w + j));
    float now = largest(high);
    now = top[h] > now ? top[h] : now;
    const float alpha = exp_vec(splat(top[h] - now))[0];
    for (j = 0; j < kDecodeBlock; j += kLanes) {
      const Vec p = exp_vec(load_vec(w + j) - splat(now));
      part += p;
      store_vec(w + j, p);
    }
    top[h] = now;
    sum[h] = sum[h] * alpha + total(part);
    for (int64_t c = h * z.width; c < (h + 1) * z.width; c++) out[c] *= alpha;
  }
  for (j = 0; j + 4 <= n; j += 4)
    for (int64_t h = 0; h < z.heads; h++)
      add_values(weights + h * kDecodeBlock + j, v + j * z.D + h * z.width, z.D, z.width, out + h * z.width);
  for (; j < n; j++)
    for (int64_t h = 0; h < z.heads; h++)
      for (int64_t c = h * z.width; c < (h + 1) * z.width; c++)
        out[c] += weights[h * kDecodeBlock + j] * get(v + j * z.D, c);
}

// Few queries: a task reads a range of keys of one batch item, all heads, and leaves maximum, sum and unscaled output;
// the ranges are then joined in order.
template <class T, class O>
void few_queries(Context& ctx, const Shape& z, const T* q, const T* k, const T* v, O* o, float* lse) {
  const int64_t want = (4 * ctx.threads() + z.B - 1) / z.B, most = (z.kv_len + kDecodeBlock - 1) / kDecodeBlock;
  const int64_t ranges = want < most ? want : most;
  const int64_t words = 2 * z.heads + z.D;  // maximum, sum, output
  Workspace::Frame frame(ctx.workspace);
  float* partial = frame.take<float>(z.B * ranges * z.Tq * words);
  with_scratch(ctx, z.B * ranges, z.Tq * z.D + z.heads * kDecodeBlock, [&](int64_t task, float* scratch) {
    const int64_t b = task / ranges, range = task % ranges;
    const int64_t begin = z.kv_len * range / ranges, end = z.kv_len * (range + 1) / ranges;
    float* query = scratch + z.heads * kDecodeBlock;
    for (int64_t i = 0; i < z.Tq * z.D; i++) query[i] = get(q, b * z.Tq * z.D + i) * z.scale;
    for (int64_t i = 0; i < z.Tq; i++) {
      float* mine = partial + (task * z.Tq + i) * words;
      for (int64_t h = 0; h < z.heads; h++) mine[h] = -INFINITY;
      for (int64_t c = z.heads; c < words; c++) mine[c] = 0;
    }
    for (int64_t j = begin; j < end; j += kDecodeBlock)
      for (int64_t i = 0; i < z.Tq; i++) {
        const int64_t limit = z.keys(i) < end ? z.keys(i) : end;
        const int64_t n = limit - j < kDecodeBlock ? limit - j : kDecodeBlock, at = (b * z.Tk + j) * z.D;
        float* mine = partial + (task * z.Tq + i) * words;
        if (n > 0)
          decode_block(z, query + i * z.D, k + at, v + at, n, scratch, mine, mine + z.heads, mine + 2 * z.heads);
      }
  });
  for (int64_t b = 0; b < z.B; b++)
    for (int64_t i = 0; i < z.Tq; i++)
      for (int64_t h = 0; h < z.heads; h++) {
        float* first = partial + (b * ranges * z.Tq + i) * words;
        const int64_t next = z.Tq * words;
        float high = first[h], sum = 0;
        for (int64_t r = 1; r < ranges; r++) high = first[r * next + h] > high ? first[r * next + h] : high;
        float* y = first + 2 * z.heads + h * z.width;
        for (int64_t r = 0; r < ranges; r++) {
          const float share = exp_vec(splat(first[r * next + h] - high))[0];
          const float* part = y + r * next;
          sum += first[r * next + z.heads + h] * share;
          for (int64_t c = 0; c < z.width; c++) y[c] = r == 0 ? part[c] * share : y[c] + part[c] * share;
        }
        for (int64_t c = 0; c < z.width; c++) put(o, (b * z.Tq + i) * z.D + h * z.width + c, y[c] / sum);
        lse[(b * z.heads + h) * z.Tq + i] = high + std::log(sum);
      }
}

template <class T, class O>
void run(Context& ctx, const Shape& z, const T* q, const T* k, const T* v, O* o, float* lse) {
  if (z.Tq <= kFewQueries) return few_queries(ctx, z, q, k, v, o, lse);
#if defined(__AVX512BF16__)
  using Kind = std::conditional_t<sizeof(T) == sizeof(bf16), Pairs, Plain>;
#else
  using Kind = Plain;
#endif
  tiled<Kind>(ctx, z, q, k, v, o, lse);
}

}  // namespace

void attention(Context& ctx, const Call& call) {
  const View &q = call.in[0], &k = call.in[1];
  Shape z;
  z.B = q.shape[0];
  z.Tq = q.shape[1];
  z.Tk = k.shape[1];
  z.D = q.shape[2];
  z.heads = call.integer(0);
  z.width = z.D / z.heads;
  z.causal = call.num[1] != 0;
  z.kv_len = call.integer(2);
  z.q_offset = call.integer(3);
  z.scale = 1.0f / std::sqrt(float(z.width));
  if (z.B == 0 || z.Tq == 0) return;
  with_type(q.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    with_type(call.out[0].dtype, [&](auto* u) {
      using O = std::remove_pointer_t<decltype(u)>;
      run(ctx, z, q.as<T>(), k.as<T>(), call.in[2].as<T>(), call.out[0].as<O>(), call.out[1].as<float>());
    });
  });
}

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
