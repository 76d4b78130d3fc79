// Attention of a few queries (decoding): keys and values are read once, in the order in which they lie in memory, and
// the time is that of reading them. A block of keys meets all heads: S = q·Kᵀ, then P = exp(S − max), then O = O·α +
// P·V.
#pragma once
#include "cpu/attention/tile.h"

namespace dw {
namespace cpu {
namespace DW_ISA {

namespace {

constexpr int64_t kFewQueries = 8;
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

// Into the second-level cache, in the order of memory: rows are read head by head, which the processor does not
// foresee, and the lines that the first level waits for are too few for the memory's rate.
template <class T>
inline void fetch([[maybe_unused]] const T* p, [[maybe_unused]] int64_t count) {
#if defined(__AVX2__)
  for (int64_t c = 0; c < count; c += 64 / int64_t(sizeof(T)))
    _mm_prefetch(reinterpret_cast<const char*>(p + c), _MM_HINT_T1);
#endif
}

// A head's arithmetic, on elements that are widened to floats. Of int8 (q8) each head of a row is followed by its
// scale.
template <class T>
struct Widened {
  using Query = float;
  static constexpr int64_t kRows = 8;  // of keys or values at a time
  static constexpr bool kScaled = sizeof(T) == 1;
  static constexpr int64_t kTail = kScaled ? kScaleBytes : 0;  // elements behind a head

  template <class Q>
  static void prepare(const Q* from, int64_t n, Query* q) {
    for (int64_t i = 0; i < n; i++) q[i] = get(from, i);
  }

  // s[j] = q · k[j], j < rows, k's rows ld apart.
  static void scores(const Query* q, const T* k, int64_t ld, int64_t width, int64_t rows, float* s) {
    if (rows < kRows) {
      for (int64_t j = 0; j < rows; j++) s[j] = score(q, k + j * ld, width) * scale(k + j * ld, width);
      return;
    }
    Vec sum[kRows] = {};
    int64_t c = 0;
    for (; c + kLanes <= width; c += kLanes) {
      const Vec y = load_vec(q + c);
#pragma GCC unroll 8
      for (int j = 0; j < kRows; j++) sum[j] += y * widen(k + j * ld + c);
    }
#pragma GCC unroll 2
    for (int j = 0; j < kRows; j += 4) totals(sum + j, s + j);
    for (; c < width; c++)
      for (int j = 0; j < kRows; j++) s[j] += q[c] * get(k, j * ld + c);
    if (kScaled)
      for (int j = 0; j < kRows; j++) s[j] *= scale(k + j * ld, width);
  }

  // Weights [kDecodeBlock] as `add` takes them.
  static void weigh(float*) {}

  // o += p[first + j] · v[j], j < rows, v's rows ld apart.
  static void add(const float* p, int64_t first, const T* v, int64_t ld, int64_t width, int64_t rows, float* o) {
    float w[kRows];
    for (int64_t j = 0; j < rows; j++) w[j] = p[first + j] * scale(v + j * ld, width);
    if (rows < kRows) {
      for (int64_t j = 0; j < rows; j++)
        for (int64_t c = 0; c < width; c++) o[c] += w[j] * get(v + j * ld, c);
      return;
    }
    int64_t c = 0;
    for (; c + kLanes <= width; c += kLanes) {
      Vec y[2] = {load_vec(o + c), Vec{}};
#pragma GCC unroll 8
      for (int j = 0; j < kRows; j++) y[j % 2] += splat(w[j]) * widen(v + j * ld + c);
      store_vec(o + c, y[0] + y[1]);
    }
    for (; c < width; c++)
      for (int j = 0; j < kRows; j++) o[c] += w[j] * get(v, j * ld + c);
  }

  // o in the order of memory.
  static void settle(float*, int64_t) {}

 private:
  static float scale([[maybe_unused]] const T* head, [[maybe_unused]] int64_t width) {
    float s = 1;
    if (kScaled) std::memcpy(&s, head + width, sizeof s);
    return s;
  }
  static float score(const Query* q, const T* k, int64_t width) {
    Vec sum{};
    int64_t c = 0;
    for (; c + kLanes <= width; c += kLanes) sum += load_vec(q + c) * widen(k + c);
    float s = total(sum);
    for (; c < width; c++) s += q[c] * get(k, c);
    return s;
  }
};

#if defined(__AVX512BF16__)
// The same on bf16 as it lies: scores are sums of pairs along the width, a multiple of 32; values are added in pairs of
// keys, with weights rounded to bf16 as in the tiled form. Half of the arithmetic of widening, which would otherwise
// take as long as reading.
struct Paired {
  using Query = bf16;
  static constexpr int64_t kRows = 8, kTail = 0;

  static void prepare(const bf16* from, int64_t n, Query* q) { std::memcpy(q, from, size_t(n) * sizeof(bf16)); }

  static void scores(const Query* q, const bf16* k, int64_t ld, int64_t width, int64_t rows, float* s) {
    if (rows == kRows) {
      dots<4>(q, k, ld, width, s);
      dots<4>(q, k + 4 * ld, ld, width, s + 4);
      return;
    }
    for (int64_t j = 0; j < rows; j++) dots<1>(q, k + j * ld, ld, width, s + j);
  }

  // In place: a word is the weights of two keys.
  static void weigh(float* p) {
    for (int64_t j = 0; j < kDecodeBlock; j += kLanes) {
      const __m256bh h = _mm512_cvtneps_pbh(_mm512_loadu_ps(p + j));
      std::memcpy(p + j / 2, &h, sizeof h);
    }
  }

  // Weights of keys that are not there are 0.
  static void add(const float* p, int64_t first, const bf16* v, int64_t ld, int64_t width, int64_t rows, float* o) {
    for (int64_t c = 0; c < width; c += 32, o += 32) {
      __m512 low = _mm512_loadu_ps(o), high = _mm512_loadu_ps(o + 16);
      const auto pair = [&](int64_t j, bool both) __attribute__((always_inline)) {
        const __m512i a = _mm512_loadu_si512(v + j * ld + c);
        const __m512i b = both ? _mm512_loadu_si512(v + (j + 1) * ld + c) : _mm512_setzero_si512();
        const __m512bh w = (__m512bh)_mm512_set1_ps(p[(first + j) / 2]);
        low = _mm512_dpbf16_ps(low, (__m512bh)_mm512_unpacklo_epi16(a, b), w);
        high = _mm512_dpbf16_ps(high, (__m512bh)_mm512_unpackhi_epi16(a, b), w);
      };
      if (rows == kRows) {
#pragma GCC unroll 4
        for (int64_t j = 0; j < kRows; j += 2) pair(j, true);
      } else {
        for (int64_t j = 0; j < rows; j += 2) pair(j, j + 1 < rows);
      }
      _mm512_storeu_ps(o, low);
      _mm512_storeu_ps(o + 16, high);
    }
  }

  // Interleaving left fours of a chunk of 32 in turns: (0 2 4 6)(1 3 5 7) instead of (0 1 2 3)(4 5 6 7).
  static void settle(float* o, int64_t width) {
    const __m512i first = _mm512_set_epi32(23, 22, 21, 20, 7, 6, 5, 4, 19, 18, 17, 16, 3, 2, 1, 0);
    const __m512i second = _mm512_set_epi32(31, 30, 29, 28, 15, 14, 13, 12, 27, 26, 25, 24, 11, 10, 9, 8);
    for (int64_t c = 0; c < width; c += 32, o += 32) {
      const __m512 low = _mm512_loadu_ps(o), high = _mm512_loadu_ps(o + 16);
      _mm512_storeu_ps(o, _mm512_permutex2var_ps(low, first, high));
      _mm512_storeu_ps(o + 16, _mm512_permutex2var_ps(low, second, high));
    }
  }

 private:
  template <int N>
  static void dots(const Query* q, const bf16* k, int64_t ld, int64_t width, float* s) {
    __m512 sum[N];
#pragma GCC unroll 4
    for (int j = 0; j < N; j++) sum[j] = _mm512_setzero_ps();
    for (int64_t c = 0; c < width; c += 32) {
      const __m512bh y = (__m512bh)_mm512_loadu_si512(q + c);
#pragma GCC unroll 4
      for (int j = 0; j < N; j++) sum[j] = _mm512_dpbf16_ps(sum[j], (__m512bh)_mm512_loadu_si512(k + j * ld + c), y);
    }
    if (N == 1) {
      s[0] = _mm512_reduce_add_ps(sum[0]);
    } else {
      Vec all[4];
      for (int j = 0; j < N; j++) all[j] = Vec(sum[j]);
      totals(all, s);
    }
  }
};
#endif

// One query against n keys of a block, all heads, keys and values in the order of memory. weights is [heads,
// kDecodeBlock]; top is the largest score so far, unscaled.
template <class Form, class T>
void decode_block(const Shape& z, const typename Form::Query* query, const T* k, const T* v, int64_t n, float* weights,
                  float* top, float* sum, float* out) {
  constexpr int64_t kRows = Form::kRows;
  const int64_t head = z.width + Form::kTail, row = z.heads * head;
  const int64_t piece = kRows * head;  // of the next rows, fetched while a head of these is read
  for (int64_t j = 0; j < n; j += kRows) {
    const T *rows = k + j * row, *next = j + kRows < n ? rows + kRows * row : v;
    for (int64_t h = 0; h < z.heads; h++) {
      fetch(next + h * piece, piece);
      Form::scores(query + h * z.width, rows + h * head, row, z.width, n - j < kRows ? n - j : kRows,
                   weights + h * kDecodeBlock + j);
    }
  }
  const Vec scale = splat(z.scale * kLog2E);
  for (int64_t h = 0; h < z.heads; h++) {
    float* w = weights + h * kDecodeBlock;
    mask_from(w, n, kDecodeBlock);
    Vec high = load_vec(w), part{};
    for (int64_t j = kLanes; j < kDecodeBlock; j += kLanes) high = max_vec(high, load_vec(w + j));
    float now = largest(high);
    now = top[h] > now ? top[h] : now;
    const float alpha = exp2_vec(splat(top[h] - now) * scale)[0];
    for (int64_t j = 0; j < kDecodeBlock; j += kLanes) {
      const Vec p = exp2_vec((load_vec(w + j) - splat(now)) * scale);
      part += p;
      store_vec(w + j, p);
    }
    Form::weigh(w);
    top[h] = now;
    sum[h] = sum[h] * alpha + total(part);
    if (alpha != 1.0f)
      for (int64_t c = h * z.width; c < (h + 1) * z.width; c++) out[c] *= alpha;
  }
  for (int64_t j = 0; j < n; j += kRows) {
    const T *rows = v + j * row, *next = j + kRows < n ? rows + kRows * row : k + n * row;
    for (int64_t h = 0; h < z.heads; h++) {
      fetch(next + h * piece, piece);
      Form::add(weights + h * kDecodeBlock, j, rows + h * head, row, z.width, n - j < kRows ? n - j : kRows,
                out + h * z.width);
    }
  }
}

// A task reads a range of keys of one batch item, all heads, and leaves maximum, sum and unscaled output; the ranges
// are then joined in order.
template <class Form, class Q, class T, class O>
void few_queries(Context& ctx, const Shape& z, const Q* q, const T* k, const T* v, O* o, float* lse) {
  using Query = typename Form::Query;
  const int64_t row = z.heads * (z.width + Form::kTail);
  const int64_t want = (4 * ctx.threads() + z.B - 1) / z.B, most = (z.kv_len + kDecodeBlock - 1) / kDecodeBlock;
  const int64_t ranges = want < most ? want : most;
  const int64_t words = 2 * z.heads + z.D;  // maximum, sum, output
  Workspace::Frame frame(ctx.workspace);
  float* partial = frame.take<float>(z.B * ranges * z.Tq * words);
  with_scratch(ctx, z.B * ranges, z.Tq * z.D + z.heads * kDecodeBlock, [&](int64_t task, float* scratch) {
    const int64_t b = task / ranges, range = task % ranges;
    const int64_t begin = z.kv_len * range / ranges, end = z.kv_len * (range + 1) / ranges;
    Query* query = reinterpret_cast<Query*>(scratch + z.heads * kDecodeBlock);
    Form::prepare(q + b * z.Tq * z.D, z.Tq * z.D, query);
    for (int64_t i = 0; i < z.Tq; i++) {
      float* mine = partial + (task * z.Tq + i) * words;
      for (int64_t h = 0; h < z.heads; h++) mine[h] = -INFINITY;
      for (int64_t c = z.heads; c < words; c++) mine[c] = 0;
    }
    for (int64_t j = begin; j < end; j += kDecodeBlock)
      for (int64_t i = 0; i < z.Tq; i++) {
        const int64_t limit = z.keys(i) < end ? z.keys(i) : end;
        const int64_t n = limit - j < kDecodeBlock ? limit - j : kDecodeBlock, at = (b * z.Tk + j) * row;
        float* mine = partial + (task * z.Tq + i) * words;
        if (n > 0)
          decode_block<Form>(z, query + i * z.D, k + at, v + at, n, scratch, mine, mine + z.heads, mine + 2 * z.heads);
      }
    for (int64_t i = 0; i < z.Tq; i++) Form::settle(partial + (task * z.Tq + i) * words + 2 * z.heads, z.D);
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
          const float share = exp2_vec(splat((first[r * next + h] - high) * z.scale * kLog2E))[0];
          const float* part = y + r * next;
          sum += first[r * next + z.heads + h] * share;
          for (int64_t c = 0; c < z.width; c++) y[c] = r == 0 ? part[c] * share : y[c] + part[c] * share;
        }
        for (int64_t c = 0; c < z.width; c++) put(o, (b * z.Tq + i) * z.D + h * z.width + c, y[c] / sum);
        lse[(b * z.heads + h) * z.Tq + i] = high * z.scale + std::log(sum);
      }
}

template <class Q, class O>
void few_queries(Context& ctx, const Shape& z, const Q* q, const int8_t* k, const int8_t* v, O* o, float* lse) {
  few_queries<Widened<int8_t>>(ctx, z, q, k, v, o, lse);
}
template <class O>
void few_queries(Context& ctx, const Shape& z, const float* q, const float* k, const float* v, O* o, float* lse) {
  few_queries<Widened<float>>(ctx, z, q, k, v, o, lse);
}
template <class O>
void few_queries(Context& ctx, const Shape& z, const bf16* q, const bf16* k, const bf16* v, O* o, float* lse) {
#if defined(__AVX512BF16__)
  if (z.width % 32 == 0) return few_queries<Paired>(ctx, z, q, k, v, o, lse);
#endif
  few_queries<Widened<bf16>>(ctx, z, q, k, v, o, lse);
}

}  // namespace
}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
