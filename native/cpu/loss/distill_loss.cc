// Cross-entropy and distillation loss of last hidden rows h [N, D], teacher rows [N, Dt], heads W [V, D] and
// Wt [V, Dt]; the formulas stand in reference/distill_loss.cc. No tensor of N × V: rows go through in chunks that fit
// the workspace, and for a chunk every product is done once:
//   1. logits of a slab of tokens, by one thread and in its cache; at once turned to e = exp(s - max of the slab), with
//      the slab's sums
//   2. JS only: the divergence and Σ ps·a, which its gradient needs before its first element
//   3. d total / d logits of a block, then dh += dᵀ·W and dW += d·h
// e is kept in the products' type: fp32, or bf16 with twice the rows a chunk. Sums are fp32 in a slab, double across
// slabs, and a slab is the same for any number of threads. Logits and e stand transposed,
// [group of 64 rows][token][row].
#include "ops/distill_loss.h"

#include <atomic>

#include "cpu/isa.h"
#include "cpu/loss/logits.h"
#include "cpu/loss/rows.h"
#include "cpu/products.h"

namespace dw {
namespace cpu {
namespace DW_ISA {

namespace {

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

struct Plan {
  int64_t rows;   // of a chunk
  int64_t slab;   // tokens that one thread works on
  int64_t block;  // tokens of a product of pass 3, a multiple of the slab
  int64_t slabs(int64_t vocabulary) const { return (vocabulary + slab - 1) / slab; }
};

// Bytes: e of both models and their slabs' sums, per row; above that, what pass 1 or pass 3 takes, whichever is more.
template <class E>
Plan plan(const LabelledLoss& q, int64_t active, int threads) {
  constexpr bool kPairs = kDot && sizeof(E) == 2;
  using L = Logits<kPairs>;
  const int64_t e = sizeof(E), models = q.kind == Distill::none ? 1 : 2;
  const int64_t words = L::words_of(q.width) + L::words_of(q.teacher_width);
  const int64_t strides = L::stride_of(q.width) + L::stride_of(q.teacher_width);
  const bool as_is = L::as_is(q.weight.dtype, q.compute, q.width) &&
                     (models == 1 || L::as_is(q.teacher_weight.dtype, q.compute, q.teacher_width));
  const int64_t workspace = q.workspace - q.workspace / 16;  // memory comes in whole pages, some of them huge
  Plan p{1, 256, 2048};
  for (;;) {
    const int64_t pass1 = threads * p.slab * 4 * (2 * kGroup + (as_is ? 0 : strides));
    const int64_t pass3 = threads * 4 * kGroup * (1024 + 192);
    const int64_t row1 = words * 4, row3 = p.block * (e + e + 1) + p.block / p.slab * 16;
    const int64_t row = models * q.vocabulary * e + p.slabs(q.vocabulary) * 9 * 4 + 128 + most(row1, row3) +
                        4 * (q.width + q.teacher_width + q.width);
    p.rows = (workspace - most(pass1, pass3) - q.rows * 8) / row;
    if (p.slab == 64 || (p.rows >= 16 && most(pass1, pass3) < workspace / 2)) break;
    p.slab /= 2, p.block /= 2;
  }
  p.rows = most(p.rows, 1);
  if (p.rows >= 16) p.rows = p.rows / 16 * 16;
  const int64_t chunks = (active + p.rows - 1) / p.rows;
  if (chunks > 0) p.rows = least(p.rows, ((active + chunks - 1) / chunks + 15) / 16 * 16);
  return p;
}

// Rows of a chunk, gathered when they do not stand together.
Block chunk_rows(Workspace::Frame& frame, const View& v, const int64_t* rows, int64_t n) {
  if (rows[n - 1] - rows[0] + 1 == n) return block_of(v, rows[0]);
  const Block out = scratch(frame, v.dtype, n, v.cols());
  const int64_t bytes = v.cols() * size_of(v.dtype);
  for (int64_t i = 0; i < n; i++)
    std::memcpy(static_cast<char*>(out.data) + i * bytes, v.as<char>() + rows[i] * bytes, size_t(bytes));
  return out;
}

// What is known of each row of a chunk after pass 1. Maxima and label are logits; z at temperature 1 and tau.
struct RowSums {
  double *z_one, *z_tau, *z_t, *sum, *dot;
  float *max_s, *max_t, *label;
};

template <class E>
struct Chunk {
  static constexpr bool kPairs = kDot && sizeof(E) == 2;
  Context& ctx;
  const LabelledLoss& q;
  const Plan plan;
  const int64_t* rows;
  const int64_t n;
  const Block hidden, teacher;
  const Temperature at;
  E *es, *et;
  float* slab_values;  // [slabs][9][n]: SlabSums' seven, then pass 2's two
  RowSums sums;

  int64_t slabs() const { return plan.slabs(q.vocabulary); }
  int64_t groups() const { return (n + kGroup - 1) / kGroup; }
  int64_t lanes(int64_t group) const { return least(kGroup, n - group * kGroup); }
  int64_t tokens(int64_t slab) const { return least(plan.slab, q.vocabulary - slab * plan.slab); }
  int64_t label(int64_t r) const { return q.labels.as<int32_t>()[rows[r]]; }
  float* values(int64_t slab, int64_t which) const { return slab_values + (slab * 9 + which) * n; }
  // e of token v, first row of a group.
  int64_t place(int64_t group, int64_t v) const { return group * kGroup * q.vocabulary + v * lanes(group); }

  // Calls body(kOne, kRows) as constants.
  template <class Body>
  void shaped(int64_t group, const Body& body) const {
    using One = std::integral_constant<bool, true>;
    using Any = std::integral_constant<bool, false>;
    using Full = std::integral_constant<int, kGroup>;
    using Part = std::integral_constant<int, 0>;
    if (lanes(group) == kGroup)
      at.one() ? body(One(), Full()) : body(Any(), Full());
    else
      at.one() ? body(One(), Part()) : body(Any(), Part());
  }

  void pass1() const {
    Workspace::Frame frame(ctx.workspace);
    const Logits<kPairs> student(frame, ctx, q.weight, hidden, n, q.compute);
    const Logits<kPairs> taught(frame, ctx, et ? q.teacher_weight : q.weight, et ? teacher : hidden, et ? n : 0,
                                q.compute);
    const int64_t slots = least(ctx.threads(), slabs());
    const int64_t student_room = room(student, q.weight),
                  room_of_both = student_room + (et ? room(taught, q.teacher_weight) : 0);
    uint32_t* converted = frame.take<uint32_t>(slots * room_of_both);
    float* logits = frame.take<float>(slots * 2 * plan.slab * kGroup);
    std::atomic<int64_t> next{0};
    ctx.pool.each(slots, [&](int64_t slot) {
      uint32_t* space = converted + slot * room_of_both;
      float *s = logits + slot * 2 * plan.slab * kGroup, *t = et ? s + plan.slab * kGroup : nullptr;
      for (int64_t k; (k = next.fetch_add(1, std::memory_order_relaxed)) < slabs();) {
        const int64_t v0 = k * plan.slab, count = tokens(k);
        const Block w = student.left(v0, count, space);
        const Block wt = et ? taught.left(v0, count, space + student_room) : Block();
        for (int64_t g = 0; g < groups(); g++) {
          student.multiply(w, count, g, lanes(g), s);
          if (et) taught.multiply(wt, count, g, lanes(g), t);
          for (int64_t r = g * kGroup; r < g * kGroup + lanes(g); r++)
            if (label(r) >= v0 && label(r) < v0 + count) sums.label[r] = s[(label(r) - v0) * kGroup + r - g * kGroup];
          const int64_t r0 = g * kGroup;
          const SlabSums out{values(k, 0) + r0, values(k, 1) + r0, values(k, 2) + r0, values(k, 3) + r0,
                             values(k, 4) + r0, values(k, 5) + r0, values(k, 6) + r0};
          shaped(g, [&](auto one, auto full) {
            slab_sums<E, decltype(one)::value, decltype(full)::value>(
                s, t, es + place(g, v0), et ? et + place(g, v0) : nullptr, count, lanes(g), at, out);
          });
        }
      }
    });
    merge();
  }

  int64_t room(const Logits<kPairs>& l, const View& w) const {
    return l.as_is(w.dtype, q.compute, l.k) ? 0 : plan.slab * l.stride;
  }

  // Sums of all slabs, each brought to the largest logit of all.
  void merge() const {
    const float inverse = float(1 / q.temperature);
    ctx.pool.split(n, 16, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; r++) {
        sums.max_s[r] = values(0, 0)[r], sums.max_t[r] = et ? values(0, 1)[r] : 0.0f;
        sums.z_one[r] = sums.z_tau[r] = sums.z_t[r] = sums.sum[r] = sums.dot[r] = 0;
      }
      for (int64_t k = 1; k < slabs(); k++)
        for (int64_t r = begin; r < end; r++) {
          sums.max_s[r] = values(k, 0)[r] > sums.max_s[r] ? values(k, 0)[r] : sums.max_s[r];
          if (et) sums.max_t[r] = values(k, 1)[r] > sums.max_t[r] ? values(k, 1)[r] : sums.max_t[r];
        }
      for (int64_t k = 0; k < slabs(); k++)
        for (int64_t r = begin; r < end; r++) {
          const float below_s = values(k, 0)[r] - sums.max_s[r];
          sums.z_one[r] += double(values(k, 2)[r] * exp_down(below_s));
          sums.z_tau[r] += double(values(k, 3)[r] * exp_down(below_s * inverse));
          sums.sum[r] += double(values(k, 5)[r]);
          if (!et) continue;
          const float below_t = values(k, 1)[r] - sums.max_t[r], f = exp_down(below_t * inverse);
          sums.z_t[r] += double(values(k, 4)[r] * f);
          sums.dot[r] += double((values(k, 6)[r] + values(k, 4)[r] * (below_t - below_s)) * f);
        }
    });
  }

  // e of slab k times these are probabilities.
  float scale_one(int64_t k, int64_t r) const {
    return exp_down(values(k, 0)[r] - sums.max_s[r]) / float(sums.z_one[r]);
  }
  float scale_tau(int64_t k, int64_t r) const {
    return exp_down((values(k, 0)[r] - sums.max_s[r]) / at.tau) / float(sums.z_tau[r]);
  }
  float scale_teacher(int64_t k, int64_t r) const {
    return exp_down((values(k, 1)[r] - sums.max_t[r]) / at.tau) / float(sums.z_t[r]);
  }

  void pass2(double* kd, double* inner) const {
    ctx.pool.each(slabs(), [&](int64_t k) {
      for (int64_t g = 0; g < groups(); g++) {
        const int64_t r0 = g * kGroup, from = place(g, k * plan.slab);
        float ss[kGroup], st[kGroup];
        for (int64_t r = 0; r < lanes(g); r++) ss[r] = scale_tau(k, r0 + r), st[r] = scale_teacher(k, r0 + r);
        shaped(g, [&](auto one, auto full) {
          slab_js<E, decltype(one)::value, decltype(full)::value>(es + from, et + from, tokens(k), lanes(g), at, ss, st,
                                                                  float(q.epsilon), values(k, 7) + r0,
                                                                  values(k, 8) + r0);
        });
      }
    });
    for (int64_t r = 0; r < n; r++) kd[r] = inner[r] = 0;
    for (int64_t k = 0; k < slabs(); k++)
      for (int64_t r = 0; r < n; r++) kd[r] += double(values(k, 7)[r]), inner[r] += double(values(k, 8)[r]);
  }

  // d of slab k, rows n apart.
  template <int kKind>
  void gradient(int64_t k, const double* inner, E* d) const {
    const int64_t v0 = k * plan.slab, count = tokens(k);
    const float epsilon = float(q.epsilon);
    for (int64_t g = 0; g < groups(); g++) {
      const int64_t r0 = g * kGroup, from = place(g, v0), m = lanes(g);
      GradientFactors f = {};
      for (int64_t r = 0; r < m; r++) {
        f.ce[r] = float(q.ce_share(rows[r0 + r]));
        f.kd[r] = float(q.kd_share(rows[r0 + r]) * q.temperature);
        f.less[r] = f.ce[r] * float(q.smoothing / double(q.vocabulary));
        f.scale_one[r] = scale_one(k, r0 + r);
        f.scale_tau[r] = kKind ? scale_tau(k, r0 + r) : 0;
        f.scale_t[r] = kKind ? scale_teacher(k, r0 + r) : 0;
        f.inner[r] = kKind == int(Distill::js) ? float(inner[r0 + r]) : 0;
      }
      const E *e = es + from, *t = kKind ? et + from : nullptr;
      shaped(g, [&](auto one, auto full) {
        constexpr bool kOne = decltype(one)::value;
        slab_gradient<E, kOne, decltype(full)::value, kKind>(e, t, d + r0, n, count, m, at, f, epsilon);
        // The label's own element, rounded once.
        for (int64_t r = 0; r < m; r++) {
          const int64_t v = label(r0 + r) - v0;
          if (v < 0 || v >= count) continue;
          const float other = kKind ? get(t, v * m + r) : 0.0f;
          const float all = gradient_of<kOne, kKind>(get(e, v * m + r), other, f, r, at, epsilon, -88.0f);
          keep(d, v * n + r0 + r, all - f.ce[r] * float(1 - q.smoothing));
        }
      });
    }
  }

  void pass3(const double* inner, Block dhidden) const {
    Workspace::Frame frame(ctx.workspace);
    E* d = frame.take<E>(least(plan.block, q.vocabulary) * n);
    for (int64_t v0 = 0; v0 < q.vocabulary; v0 += plan.block) {
      const int64_t count = least(plan.block, q.vocabulary - v0), first = v0 / plan.slab;
      ctx.pool.each((count + plan.slab - 1) / plan.slab, [&](int64_t i) {
        E* to = d + i * plan.slab * n;
        if (q.kind == Distill::js)
          gradient<1>(first + i, inner, to);
        else if (q.kind == Distill::kl)
          gradient<2>(first + i, inner, to);
        else
          gradient<0>(first + i, inner, to);
      });
      const Block dlogits = {d, q.compute, n};
      Gemm dh = product(n, q.width, count, dlogits, block_of(q.weight, v0), dhidden, q.compute);
      dh.a_transposed = true;
      dh.epilogue.accumulate = v0 > 0;
      gemm(ctx, dh);
      if (!q.dweight) continue;
      Gemm dw = product(count, q.width, n, dlogits, hidden, {q.dweight.as<float>() + v0 * q.width, DType::f32, q.width},
                        q.compute);
      dw.epilogue.accumulate = true;
      gemm(ctx, dw);
    }
  }
};

template <class E>
void run_chunk(Context& ctx, const LabelledLoss& q, const Plan& plan, const int64_t* rows, int64_t n, double& ce_total,
               double& kd_total) {
  Workspace::Frame frame(ctx.workspace);
  const bool teach = q.kind != Distill::none;
  double* sums = frame.take<double>(7 * n);
  float* maxima = frame.take<float>(3 * n);
  const float tau = float(q.temperature);
  const Chunk<E> c{ctx,
                   q,
                   plan,
                   rows,
                   n,
                   chunk_rows(frame, q.hidden, rows, n),
                   teach ? chunk_rows(frame, q.teacher_hidden, rows, n) : Block(),
                   {tau, tau > 1 ? tau : 1.0f},
                   frame.take<E>(q.vocabulary * n),
                   teach ? frame.take<E>(q.vocabulary * n) : nullptr,
                   frame.take<float>(plan.slabs(q.vocabulary) * 9 * n),
                   {sums, sums + n, sums + 2 * n, sums + 3 * n, sums + 4 * n, maxima, maxima + n, maxima + 2 * n}};
  double *kd = sums + 5 * n, *inner = sums + 6 * n;
  c.pass1();
  if (q.kind == Distill::js) c.pass2(kd, inner);
  for (int64_t i = 0; i < n; i++) {
    const int64_t r = rows[i];
    const double squared = q.temperature * q.temperature, max = double(c.sums.max_s[i]);
    if (q.is_labelled(r)) {
      // lse - (1 - ε)·s_y - ε·mean, each less the row's largest logit.
      const double mean = c.sums.sum[i] / double(q.vocabulary) - max;
      const double ce = std::log(c.sums.z_one[i]) - (1 - q.smoothing) * (double(c.sums.label[i]) - max) -
                        (q.smoothing > 0 ? q.smoothing * mean : 0);
      q.ce_rows.as<float>()[r] = float(ce);
      ce_total += ce;
    }
    if (q.distilled(r)) {
      double d = kd[i] / 2;
      if (q.kind == Distill::kl)
        d = c.sums.dot[i] / c.sums.z_t[i] / q.temperature + std::log(c.sums.z_tau[i]) - std::log(c.sums.z_t[i]);
      q.kd_rows.as<float>()[r] = float(squared * d);
      kd_total += squared * d;
    }
  }
  if (!q.grad) return;
  const bool together = rows[n - 1] - rows[0] + 1 == n;
  const Block d = together ? block_of(q.dhidden, rows[0]) : scratch(frame, DType::f32, n, q.width);
  c.pass3(inner, d);
  if (together) return;
  for (int64_t i = 0; i < n; i++)
    std::memcpy(q.dhidden.as<float>() + rows[i] * q.width, static_cast<float*>(d.data) + i * q.width,
                size_t(q.width) * 4);
}

template <class E>
void run_rows(Context& ctx, const LabelledLoss& q, const int64_t* rows, int64_t active, double& ce, double& kd) {
  const Plan p = plan<E>(q, active, ctx.threads());
  for (int64_t i = 0; i < active; i += p.rows) run_chunk<E>(ctx, q, p, rows + i, least(p.rows, active - i), ce, kd);
}

}  // namespace

void distill_loss(Context& ctx, const DistillLoss& loss) {
  const LabelledLoss q(loss);
  Workspace::Frame frame(ctx.workspace);
  // Rows that count for nothing are left out.
  int64_t* rows = frame.take<int64_t>(q.rows);
  int64_t active = 0;
  for (int64_t r = 0; r < q.rows; r++) {
    q.ce_rows.as<float>()[r] = q.kd_rows.as<float>()[r] = 0;
    if (q.is_labelled(r) || q.distilled(r)) {
      rows[active++] = r;
    } else if (q.grad) {
      float* d = q.dhidden.as<float>() + r * q.width;
      for (int64_t i = 0; i < q.width; i++) d[i] = 0;
    }
  }
  double ce = 0, kd = 0;
  if (q.compute == DType::bf16)
    run_rows<bf16>(ctx, q, rows, active, ce, kd);
  else
    run_rows<float>(ctx, q, rows, active, ce, kd);
  ce = q.labelled > 0 ? ce / double(q.labelled) : 0;
  kd = q.positions > 0 ? kd / q.positions : 0;
  float* stats = q.stats.as<float>();
  stats[0] = float(ce);
  stats[1] = float(kd);
  stats[2] = float(q.ce_weight * ce + q.kd_weight * kd);
  stats[3] = float(q.labelled);
}

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
