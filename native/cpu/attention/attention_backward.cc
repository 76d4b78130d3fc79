// Attention, backward; the formulas stand in reference/attention.cc. P is made again from the stored log-sum-exp, a
// block of keys against all blocks of queries: dV += Pᵀ·dO and dK += dSᵀ·Q stay in the block's accumulators, dQ += dS·K
// goes to a sum of the task's own; when heads are fewer than threads a head's keys are shared out and their dQ added in
// order.
#include <type_traits>

#include "cpu/attention/pack.h"
#include "cpu/isa.h"
#include "ops/attention.h"

namespace dw {
namespace cpu {
namespace DW_ISA {

namespace {

constexpr int64_t kQueryBlock = 96;                // a multiple of kRows and of a pair
constexpr int64_t kKeyBlock = 192;                 // a multiple of kCols and of kRows
constexpr int64_t kPackLimit = int64_t(16) << 20;  // words of packed operands held at a time
static_assert(kKeyBlock % kCols == 0 && kKeyBlock % kRows == 0 && kQueryBlock % kRows == 0, "whole tiles");

struct Shape {
  int64_t B, Tq, Tk, D, heads, width;
  bool causal;
  float scale;
};

// The packed operands of one head, in units, and what they take.
template <class Kind>
struct Packed {
  using Unit = typename Kind::Unit;
  Unit *key_panels, *value_panels, *key_stack, *query_rows, *query_stack, *grad_rows, *grad_stack;
  float *lse, *delta, *dq;

  static int64_t stride(const Shape& z) {  // of a row in A form; Plain reads its stacks as rows
    return Kind::kPer == 1 ? round_up(z.width, kLanes) : (z.width + 1) / 2;
  }
  static int64_t words(const Shape& z, int64_t ranges) {
    const int64_t depth = (z.width + Kind::kPer - 1) / Kind::kPer, padded = round_up(z.width, kLanes);
    const int64_t rows = round_up(z.Tq, kQueryBlock);
    int64_t n = 2 * round_up(round_up(z.Tk, kCols) * depth, 16);
    n += round_up(z.Tk, 2) / Kind::kPer * padded + 2 * (rows / Kind::kPer * padded);
    if (Kind::kPer == 2) n += 2 * round_up(rows * stride(z), 16);
    return n + 2 * rows + ranges * rows * padded;
  }
  Packed(const Shape& z, float* base) {
    const int64_t depth = (z.width + Kind::kPer - 1) / Kind::kPer, padded = round_up(z.width, kLanes);
    const int64_t rows = round_up(z.Tq, kQueryBlock);
    const auto take = [&](int64_t n) {
      float* p = base;
      base += round_up(n, 16);
      return p;
    };
    key_panels = reinterpret_cast<Unit*>(take(round_up(z.Tk, kCols) * depth));
    value_panels = reinterpret_cast<Unit*>(take(round_up(z.Tk, kCols) * depth));
    key_stack = reinterpret_cast<Unit*>(take(round_up(z.Tk, 2) / Kind::kPer * padded));
    query_stack = reinterpret_cast<Unit*>(take(rows / Kind::kPer * padded));
    grad_stack = reinterpret_cast<Unit*>(take(rows / Kind::kPer * padded));
    query_rows = query_stack;
    grad_rows = grad_stack;
    if (Kind::kPer == 2) {
      query_rows = reinterpret_cast<Unit*>(take(rows * stride(z)));
      grad_rows = reinterpret_cast<Unit*>(take(rows * stride(z)));
    }
    lse = take(rows);
    delta = take(rows);
    dq = base;
  }
};

// P = exp(S · scale − lse) and dS of one pair of rows out of S and dP, as the products that
// follow read them: pT and dsT contracted over the queries, ds over the keys. Plain keeps them where S and dP were.
inline void weights(float* s, float* dp, int64_t columns, float scale, const float* lse, const float* delta, Plain) {
  for (int64_t r = 0; r < 2; r++, s += kKeyBlock, dp += kKeyBlock)
    for (int64_t j = 0; j < columns; j += kLanes) {
      const Vec p = exp_vec(load_vec(s + j) * splat(scale) - splat(lse[r]));
      store_vec(s + j, p);
      store_vec(dp + j, p * (load_vec(dp + j) - splat(delta[r])));
    }
}

#if defined(__AVX512BF16__)
inline __m512i interleave(Vec even, Vec odd) {
  const __m512i lo = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(__m512(even)));
  const __m512i hi = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(__m512(odd)));
  return _mm512_or_si512(lo, _mm512_slli_epi32(hi, 16));
}

inline void weights(float* s, float* dp, int64_t columns, float scale, const float* lse, const float* delta, Pairs,
                    Word* pT, Word* dsT, Word* ds) {
  const float *s1 = s + kKeyBlock, *dp1 = dp + kKeyBlock;
  for (int64_t j = 0; j < columns; j += kLanes) {
    const Vec p0 = exp_vec<4>(load_vec(s + j) * splat(scale) - splat(lse[0]));
    const Vec p1 = exp_vec<4>(load_vec(s1 + j) * splat(scale) - splat(lse[1]));
    const Vec d0 = p0 * (load_vec(dp + j) - splat(delta[0])), d1 = p1 * (load_vec(dp1 + j) - splat(delta[1]));
    _mm512_storeu_si512(pT + j, interleave(p0, p1));
    _mm512_storeu_si512(dsT + j, interleave(d0, d1));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(ds + j / 2), (__m256i)_mm512_cvtneps_pbh(__m512(d0)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(ds + kKeyBlock / 2 + j / 2),
                        (__m256i)_mm512_cvtneps_pbh(__m512(d1)));
  }
}
#endif

template <class Kind>
constexpr int64_t scratch_words(int64_t padded) {
  return 2 * kKeyBlock * padded + (Kind::kPer == 2 ? 4 : 2) * kQueryBlock * kKeyBlock;
}

// Keys [from, from + count) against all queries: dq (the task's sum) grows, dk and dv of these keys are written.
template <class Kind, class O>
void key_block(const Shape& z, const Packed<Kind>& x, float* dq, int64_t from, int64_t count, float* scratch, O* dk,
               O* dv) {
  using Unit = typename Kind::Unit;
  constexpr int64_t kPer = Kind::kPer;
  const int64_t depth = (z.width + kPer - 1) / kPer, padded = round_up(z.width, kLanes);
  const int64_t stride = Packed<Kind>::stride(z), columns = round_up(count, kCols), keys = round_up(count, kRows);
  float *sum_k = scratch, *sum_v = sum_k + kKeyBlock * padded;
  float *s = sum_v + kKeyBlock * padded, *dp = s + kQueryBlock * kKeyBlock;
  for (int64_t i = 0; i < 2 * kKeyBlock * padded; i++) scratch[i] = 0;
  Tiles tiles;
  const int64_t start = z.causal ? from / kQueryBlock * kQueryBlock : 0;
  for (int64_t i = start; i < z.Tq; i += kQueryBlock) {
    const int64_t n = z.Tq - i < kQueryBlock ? z.Tq - i : kQueryBlock, rows = round_up(n, kRows);
    times_panels<Kind>(tiles, rows, columns / kCols, depth, x.query_rows + i * stride, stride,
                       x.key_panels + from * depth, s, kKeyBlock);
    times_panels<Kind>(tiles, rows, columns / kCols, depth, x.grad_rows + i * stride, stride,
                       x.value_panels + from * depth, dp, kKeyBlock);
    for (int64_t r = 0; r < rows; r++) {
      const int64_t seen = z.causal && i + r + 1 - from < count ? i + r + 1 - from : count;
      mask_from(s + r * kKeyBlock, r < n ? seen : 0, columns);
    }
    const Unit *pT, *dsT, *ds;
    int64_t ds_stride;
    if constexpr (kPer == 1) {
      for (int64_t r = 0; r < rows; r += 2)
        weights(s + r * kKeyBlock, dp + r * kKeyBlock, columns, z.scale, x.lse + i + r, x.delta + i + r, Plain());
      pT = s;
      dsT = ds = dp;
      ds_stride = kKeyBlock;
    } else {
      Unit* p_out = reinterpret_cast<Unit*>(dp + kQueryBlock * kKeyBlock);
      Unit *dsT_out = p_out + kQueryBlock / 2 * kKeyBlock, *ds_out = dsT_out + kQueryBlock / 2 * kKeyBlock;
      for (int64_t r = 0; r < rows; r += 2)
        weights(s + r * kKeyBlock, dp + r * kKeyBlock, columns, z.scale, x.lse + i + r, x.delta + i + r, Kind(),
                p_out + r / 2 * kKeyBlock, dsT_out + r / 2 * kKeyBlock, ds_out + r * (kKeyBlock / 2));
      pT = p_out;
      dsT = dsT_out;
      ds = ds_out;
      ds_stride = kKeyBlock / 2;
    }
    const int64_t row_units = (n + kPer - 1) / kPer, key_units = (count + kPer - 1) / kPer;
    times_stack<Kind, kAdd, true>(tiles, keys, padded, row_units, pT, kKeyBlock, x.grad_stack + i / kPer * padded,
                                  sum_v, nullptr);
    times_stack<Kind, kAdd, true>(tiles, keys, padded, row_units, dsT, kKeyBlock, x.query_stack + i / kPer * padded,
                                  sum_k, nullptr);
    times_stack<Kind, kAdd, false>(tiles, rows, padded, key_units, ds, ds_stride, x.key_stack + from / kPer * padded,
                                   dq + i * padded, nullptr);
  }
  for (int64_t j = 0; j < count; j++)
    for (int64_t c = 0; c < z.width; c++) {
      put(dk + (from + j) * z.D, c, sum_k[j * padded + c] * z.scale);
      put(dv + (from + j) * z.D, c, sum_v[j * padded + c]);
    }
}

// delta[i] = do[i] · o[i]
template <class O, class G>
void row_dots(const Head<O>& o, const Head<G>& grad, float* delta) {
  for (int64_t i = 0; i < o.rows; i++) {
    float sum = 0;
    for (int64_t c = 0; c < o.width; c++) sum += get(o.data + i * o.ld, c) * get(grad.data + i * grad.ld, c);
    delta[i] = sum;
  }
}

// A whole tensor [B, T, D], and its heads.
struct Tensor {
  const View& view;
  const Shape& z;
  int64_t offset(int64_t pair) const { return pair / z.heads * view.shape[1] * z.D + pair % z.heads * z.width; }
  template <class T>
  Head<T> head(int64_t pair) const {
    return Head<T>{view.as<T>() + offset(pair), z.D, view.shape[1], z.width};
  }
};

template <class Kind>
void pack(const Shape& z, const Packed<Kind>& x, const AttentionBackward& a, int64_t pair) {
  const Tensor q{a.q, z}, k{a.k, z}, v{a.v, z}, o{a.o, z}, grad{a.dout, z};
  const int64_t rows = round_up(z.Tq, kQueryBlock), stride = Packed<Kind>::stride(z);
  with_type(q.view.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    pack_panels<Kind>(k.head<T>(pair), x.key_panels);
    pack_panels<Kind>(v.head<T>(pair), x.value_panels);
    pack_stack<Kind>(k.head<T>(pair), x.key_stack);
    pack_rows<Kind>(q.head<T>(pair), 0, rows, stride, x.query_rows);
    if (Kind::kPer == 2) pack_stack<Kind>(q.head<T>(pair), x.query_stack);
  });
  const float* lse = a.lse.as<float>() + pair * z.Tq;
  for (int64_t i = 0; i < rows; i++) {
    x.delta[i] = 0;
    x.lse[i] = i < z.Tq ? lse[i] : 0.0f;
  }
  with_type(grad.view.dtype, [&](auto* t) {
    using G = std::remove_pointer_t<decltype(t)>;
    pack_rows<Kind>(grad.head<G>(pair), 0, rows, stride, x.grad_rows);
    if (Kind::kPer == 2) pack_stack<Kind>(grad.head<G>(pair), x.grad_stack);
    with_type(o.view.dtype, [&](auto* u) {
      row_dots(o.head<std::remove_pointer_t<decltype(u)>>(pair), grad.head<G>(pair), x.delta);
    });
  });
}

template <class Kind>
void backward(Context& ctx, const Shape& z, const AttentionBackward& a) {
  const int64_t pairs = z.B * z.heads, padded = round_up(z.width, kLanes), rows = round_up(z.Tq, kQueryBlock);
  const int64_t blocks = (z.Tk + kKeyBlock - 1) / kKeyBlock;
  const Tensor dq{a.dq, z}, dk{a.dk, z}, dv{a.dv, z};
  int64_t ranges = (4 * ctx.threads() + pairs - 1) / pairs;
  if (ranges > blocks) ranges = blocks;
  const int64_t words = round_up(Packed<Kind>::words(z, ranges), 16);
  int64_t group = kPackLimit / words;
  if (group < ctx.threads()) group = ctx.threads();
  if (group > pairs) group = pairs;
  Workspace::Frame frame(ctx.workspace);
  float* base = frame.take<float>(group * words);
  for (int64_t first = 0; first < pairs; first += group) {
    const int64_t count = pairs - first < group ? pairs - first : group;
    ctx.pool.each(count, [&](int64_t i) { pack<Kind>(z, Packed<Kind>(z, base + i * words), a, first + i); });
    with_scratch(ctx, count * ranges, scratch_words<Kind>(padded), [&](int64_t task, float* scratch) {
      const int64_t i = task % count, range = task / count, pair = first + i;
      const Packed<Kind> x(z, base + i * words);
      float* sum = x.dq + range * rows * padded;
      for (int64_t e = 0; e < rows * padded; e++) sum[e] = 0;
      // Early keys are seen by most queries when causal: every range takes each ranges-th block.
      for (int64_t block = range; block < blocks; block += ranges) {
        const int64_t from = block * kKeyBlock, n = z.Tk - from < kKeyBlock ? z.Tk - from : kKeyBlock;
        with_type(dk.view.dtype, [&](auto* t) {
          using O = std::remove_pointer_t<decltype(t)>;
          key_block<Kind>(z, x, sum, from, n, scratch, dk.view.as<O>() + dk.offset(pair),
                          dv.view.as<O>() + dv.offset(pair));
        });
      }
    });
    ctx.pool.each(count, [&](int64_t i) {
      const float* sums = Packed<Kind>(z, base + i * words).dq;
      with_type(dq.view.dtype, [&](auto* t) {
        auto* out = dq.view.as<std::remove_pointer_t<decltype(t)>>() + dq.offset(first + i);
        for (int64_t r = 0; r < z.Tq; r++)
          for (int64_t c = 0; c < z.width; c++) {
            float sum = 0;
            for (int64_t range = 0; range < ranges; range++) sum += sums[(range * rows + r) * padded + c];
            put(out, r * z.D + c, sum * z.scale);
          }
      });
    });
  }
}

}  // namespace

void attention_backward(Context& ctx, const AttentionBackward& a) {
  const View &q = a.q, &k = a.k;
  Shape z;
  z.B = q.shape[0];
  z.Tq = q.shape[1];
  z.Tk = k.shape[1];
  z.D = q.shape[2];
  z.heads = a.heads;
  z.width = z.D / z.heads;
  z.causal = a.causal;
  z.scale = 1.0f / std::sqrt(float(z.width));
  if (z.B == 0) return;
#if defined(__AVX512BF16__)
  if (q.dtype == DType::bf16) return backward<Pairs>(ctx, z, a);
#endif
  backward<Plain>(ctx, z, a);
}

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
