// Attention, forward; the formulas stand in reference/attention.cc. Tiled with a running maximum and sum (Milakov and
// Gimelshein 2018; Dao et al. 2022): per block of queries, S = Q·Kᵀ for a block of keys, P = exp(S − max), O = O·α +
// P·V. A few queries (decoding) take another way: keys and values are read once, in the order in which they lie in
// memory.
#include <type_traits>

#include "core/op.h"
#include "cpu/attention_tile.h"
#include "cpu/isa.h"

namespace dw {
namespace cpu {
namespace DW_ISA {

namespace {

constexpr int64_t kQueryBlock = 96;                // a multiple of kRows after each halving down to 24
constexpr int64_t kKeyBlock = 128;                 // a multiple of kCols
constexpr int64_t kPackLimit = int64_t(16) << 20;  // words of packed keys and values held at a time
constexpr int64_t kFewQueries = 4;
constexpr int64_t kDecodeBlock = 64;  // keys

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

// One row of S, n of its columns visible, becomes P in place (as units). Returns the factor for what was summed before.
template <class Kind>
float softmax_row(float* s, int64_t n, int64_t columns, float scale, float* top, float* sum) {
  mask_from(s, n, columns);
  Vec high = splat(*top);
  for (int64_t j = 0; j < columns; j += kLanes) high = max_vec(high, load_vec(s + j) * splat(scale));
  const float now = largest(high), alpha = fast_exp(*top - now);
  Vec part{};
  for (int64_t j = 0; j < columns; j += kLanes) {
    const Vec p = exp_vec(load_vec(s + j) * splat(scale) - splat(now));
    part += p;
    store_units(s + j / Kind::kPer, p, Kind());
  }
  *sum = *sum * alpha + total(part);
  *top = now;
  return alpha;
}

template <class Kind, class T, class O>
void query_block(const Shape& z, const Head<T>& q, int64_t from, int64_t count, const typename Kind::Unit* keys,
                 const typename Kind::Unit* values, float* scratch, O* o, float* lse) {
  using Unit = typename Kind::Unit;
  const int64_t depth = (z.width + Kind::kPer - 1) / Kind::kPer, padded = round_up(z.width, kLanes);
  const int64_t rows = round_up(count, kRows);
  float* s = scratch;
  float* sum_o = s + kQueryBlock * kKeyBlock;
  float *top = sum_o + kQueryBlock * padded, *sum = top + kQueryBlock, *alpha = sum + kQueryBlock;
  Unit* a = reinterpret_cast<Unit*>(alpha + kQueryBlock);
  pack_rows<Kind>(q, from, rows, depth, a);
  for (int64_t i = 0; i < rows; i++) {
    top[i] = -INFINITY;
    sum[i] = alpha[i] = 0;
  }
  for (int64_t i = 0; i < rows * padded; i++) sum_o[i] = 0;
  const int64_t visible = z.keys(from + count - 1);
  for (int64_t j = 0; j < visible; j += kKeyBlock) {
    const int64_t n = visible - j < kKeyBlock ? visible - j : kKeyBlock, columns = round_up(n, kCols);
    times_panels<Kind>(rows, columns / kCols, depth, a, depth, keys + j * depth, s, kKeyBlock);
    for (int64_t i = 0; i < count; i++) {
      const int64_t seen = z.keys(from + i) - j;
      alpha[i] = softmax_row<Kind>(s + i * kKeyBlock, seen < n ? seen : n, columns, z.scale, top + i, sum + i);
    }
    times_stack<Kind, kScaleAdd, false>(rows, padded, (n + Kind::kPer - 1) / Kind::kPer,
                                        reinterpret_cast<const Unit*>(s), kKeyBlock, values + j / Kind::kPer * padded,
                                        sum_o, alpha);
  }
  for (int64_t i = 0; i < count; i++) {
    const float inverse = 1.0f / sum[i];
    for (int64_t c = 0; c < z.width; c++) put(o + (from + i) * z.D, c, sum_o[i * padded + c] * inverse);
    lse[from + i] = top[i] + std::log(sum[i]);
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
  const int64_t scratch = kQueryBlock * (kKeyBlock + padded + 3 + depth);
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
    // The last queries see the most keys when causal: they go first, so that the threads finish together.
    with_scratch(ctx, count * blocks, scratch, [&](int64_t task, float* mine) {
      const int64_t pair = first + task % count, from = (blocks - 1 - task / count) * block;
      const int64_t rows = z.Tq - from < block ? z.Tq - from : block;
      query_block<Kind>(z, head(q, pair, z.Tq, z.Tq), from, rows, keys + task % count * key_words,
                        values + task % count * value_words, mine,
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

// o += Σ_j p[j] · v[j] over one head and n keys, v's rows ld apart.
template <class T>
inline void add_values(const float* p, const T* v, int64_t ld, int64_t n, int64_t width, float* o) {
  int64_t j = 0;
  for (; j + 4 <= n; j += 4) {
    const T *v0 = v + j * ld, *v1 = v0 + ld, *v2 = v1 + ld, *v3 = v2 + ld;
    const float p0 = p[j], p1 = p[j + 1], p2 = p[j + 2], p3 = p[j + 3];
    for (int64_t c = 0; c < width; c++) o[c] += p0 * get(v0, c) + p1 * get(v1, c) + p2 * get(v2, c) + p3 * get(v3, c);
  }
  for (; j < n; j++)
    for (int64_t c = 0; c < width; c++) o[c] += p[j] * get(v + j * ld, c);
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
  with_scratch(ctx, z.B * ranges, z.Tq * z.D + kDecodeBlock, [&](int64_t task, float* scratch) {
    const int64_t b = task / ranges, range = task % ranges;
    const int64_t begin = z.kv_len * range / ranges, end = z.kv_len * (range + 1) / ranges;
    float* query = scratch + kDecodeBlock;
    for (int64_t i = 0; i < z.Tq * z.D; i++) query[i] = get(q, b * z.Tq * z.D + i) * z.scale;
    for (int64_t i = 0; i < z.Tq; i++) {
      float* mine = partial + (task * z.Tq + i) * words;
      for (int64_t h = 0; h < z.heads; h++) {
        mine[h] = -INFINITY;
        mine[z.heads + h] = 0;
      }
      for (int64_t c = 0; c < z.D; c++) mine[2 * z.heads + c] = 0;
    }
    for (int64_t j = begin; j < end; j += kDecodeBlock)
      for (int64_t i = 0; i < z.Tq; i++) {
        const int64_t limit = z.keys(i) < end ? z.keys(i) : end;
        const int64_t n = limit - j < kDecodeBlock ? limit - j : kDecodeBlock;
        if (n <= 0) continue;
        float *top = partial + (task * z.Tq + i) * words, *sum = top + z.heads, *out = sum + z.heads;
        for (int64_t h = 0; h < z.heads; h++) {
          const T *kh = k + (b * z.Tk + j) * z.D + h * z.width, *vh = v + (b * z.Tk + j) * z.D + h * z.width;
          float high = top[h];
          for (int64_t m = 0; m < n; m++) {
            scratch[m] = dot_head(query + i * z.D + h * z.width, kh + m * z.D, z.width);
            high = scratch[m] > high ? scratch[m] : high;
          }
          const float alpha = fast_exp(top[h] - high);
          float part = 0;
          for (int64_t m = 0; m < n; m++) {
            scratch[m] = fast_exp(scratch[m] - high);
            part += scratch[m];
          }
          top[h] = high;
          sum[h] = sum[h] * alpha + part;
          float* oh = out + h * z.width;
          for (int64_t c = 0; c < z.width; c++) oh[c] *= alpha;
          add_values(scratch, vh, z.D, n, z.width, oh);
        }
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
          const float share = fast_exp(first[r * next + h] - high);
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
