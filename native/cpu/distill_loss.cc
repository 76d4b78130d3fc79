// Cross-entropy and distillation loss of last hidden rows h [N, D], teacher rows [N, Dt], heads W [V, D] and Wt [V, Dt]; the
// formulas stand in reference/distill_loss.cc. No tensor of N × V: rows go through in chunks that fit the workspace, and
// for a chunk every product is done once:
//   1. logits, a block of tokens at a time, W on the left and read once as it lies (rows are the few columns of the
//      product, so nothing of V × D is ever packed); at once turned to e = exp(s - max of a slab), with the slab's sums
//   2. JS only: the divergence and Σ ps·a, which its gradient needs before its first element
//   3. d total / d logits of a block, then dh += dᵀ·W and dW += d·h
// e is kept in the products' type: fp32, or bf16 with twice the rows a chunk. Sums are fp32 in a slab, double across slabs.
#include "cpu/distill_rows.h"
#include "cpu/ffn.h"
#include "cpu/isa.h"
#include "ops/distill_loss.h"

namespace dw {
namespace cpu {
namespace DW_ISA {

namespace {

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
double exp_of(double x) { return std::exp(x); }

struct Plan {
  int64_t block;  // tokens of a product
  int64_t rows;   // of a chunk
  int64_t slab;   // tokens that one thread works on
};

// Bytes: e of both (V per row), a block's fp32 logits and gradient, the rows' sums, and what the products take themselves.
Plan plan(const DistillLoss& q, int64_t active, int threads) {
  const int64_t e = size_of(q.compute), models = q.kind == Distill::none ? 1 : 2;
  const int64_t words = most(q.width, q.teacher_width) / (q.compute == DType::bf16 ? 2 : 1) + 32;
  const bool left_packed = q.compute == DType::bf16;
  Plan p{2048, 1, 0};
  for (;; p.block /= 2) {
    p.slab = least(256, p.block);
    const int64_t slabs = (q.vocabulary + p.slab - 1) / p.slab;
    const int64_t product = threads * (1024 * 64 * 4 + least(p.block, 1536) * 64 * 4) + (left_packed ? p.block * words * 4 : 0);
    const int64_t per_row = models * q.vocabulary * e + (models + 3) * slabs * 4 + 7 * (p.block / p.slab + 1) * 4 + 256 +
                            p.block * (models * (e == 2 ? 4 : 0) + e + 4) + (q.width + q.teacher_width) * 4 + q.width * 4;
    const int64_t rows = (q.workspace - product) / per_row;
    if (p.block > 64 && (rows < 1 || product > q.workspace / 3)) continue;
    p.rows = rows < 1 ? 1 : rows;
    break;
  }
  if (p.rows >= 16) p.rows = p.rows / 16 * 16;
  const int64_t chunks = (active + p.rows - 1) / p.rows;
  if (chunks > 0) p.rows = least(p.rows, ((active + chunks - 1) / chunks + 15) / 16 * 16);
  p.block = least(p.block, q.vocabulary);
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

// logits[token][row] of `tokens` tokens from v0.
void logits(Context& ctx, const View& weight, int64_t v0, int64_t tokens, Block rows, int64_t n, float* to, DType compute) {
  Gemm g;
  const Block w = block_of(weight, v0);
  g.m = tokens, g.n = n, g.k = weight.cols();
  g.a = w.data, g.a_type = w.type, g.lda = w.ld;
  g.b = rows.data, g.b_type = rows.type, g.ldb = rows.ld, g.b_transposed = true;
  g.c = to, g.ldc = n;
  g.compute = compute;
  gemm(ctx, g);
}

// What is known of each row of a chunk after pass 1. Maxima are of logits; z at temperature 1 and tau.
struct RowSums {
  double *max_s, *max_t, *z_one, *z_tau, *z_t, *sum, *dot, *label;

  void add(const SlabSums& q, int64_t n, bool first, bool teacher, double tau) const {
    for (int64_t r = 0; r < n; r++) {
      if (first) {
        max_s[r] = q.max_s[r], max_t[r] = teacher ? q.max_t[r] : 0;
        z_one[r] = z_tau[r] = z_t[r] = sum[r] = dot[r] = 0;
      }
      const double ms = q.max_s[r] > max_s[r] ? q.max_s[r] : max_s[r], old_s = max_s[r] - ms, new_s = q.max_s[r] - ms;
      z_one[r] = z_one[r] * exp_of(old_s) + q.z_one[r] * exp_of(new_s);
      z_tau[r] = z_tau[r] * exp_of(old_s / tau) + q.z_tau[r] * exp_of(new_s / tau);
      sum[r] += q.sum[r];
      max_s[r] = ms;
      if (!teacher) continue;
      const double mt = q.max_t[r] > max_t[r] ? q.max_t[r] : max_t[r], old_t = max_t[r] - mt, new_t = q.max_t[r] - mt;
      dot[r] = (dot[r] + z_t[r] * (old_t - old_s)) * exp_of(old_t / tau) +
               (q.dot[r] + q.z_t[r] * (new_t - new_s)) * exp_of(new_t / tau);
      z_t[r] = z_t[r] * exp_of(old_t / tau) + q.z_t[r] * exp_of(new_t / tau);
      max_t[r] = mt;
    }
  }
};

template <class E>
struct Chunk {
  Context& ctx;
  const DistillLoss& q;
  const Plan plan;
  const int64_t* rows;
  const int64_t n;
  const Block hidden, teacher;
  const Temperature at;
  E *es, *et;
  float *max_s, *max_t;  // [slabs][n]
  float* work;           // scratch of slabs: [slabs][3][n]
  RowSums sums;

  int64_t slabs() const { return (q.vocabulary + plan.slab - 1) / plan.slab; }
  int64_t tokens(int64_t slab) const { return least(plan.slab, q.vocabulary - slab * plan.slab); }
  const int32_t* labels() const { return q.labels.as<int32_t>(); }
  E* teacher_at(int64_t v) const { return et ? et + v * n : nullptr; }

  void pass1() const {
    Workspace::Frame frame(ctx.workspace);
    const bool direct = sizeof(E) == 4;
    float* s = direct ? nullptr : frame.take<float>(plan.block * n);
    float* t = direct || !et ? nullptr : frame.take<float>(plan.block * n);
    const int64_t most_slabs = (plan.block + plan.slab - 1) / plan.slab;
    float* sum = frame.take<float>(most_slabs * 5 * n);
    for (int64_t v0 = 0; v0 < q.vocabulary; v0 += plan.block) {
      const int64_t count = least(plan.block, q.vocabulary - v0), parts = (count + plan.slab - 1) / plan.slab;
      float* sv = direct ? reinterpret_cast<float*>(es + v0 * n) : s;
      float* tv = !et ? nullptr : direct ? reinterpret_cast<float*>(et + v0 * n) : t;
      logits(ctx, q.weight, v0, count, hidden, n, sv, q.compute);
      if (et) logits(ctx, q.teacher_weight, v0, count, teacher, n, tv, q.compute);
      for (int64_t r = 0; r < n; r++) {
        const int32_t label = labels()[rows[r]];
        if (label >= v0 && label < v0 + count) sums.label[r] = sv[(label - v0) * n + r];
      }
      auto slab = [&](int64_t i) {
        float* p = sum + i * 5 * n;
        const int64_t k = v0 / plan.slab + i;
        return SlabSums{max_s + k * n, max_t ? max_t + k * n : nullptr, p, p + n, p + 2 * n, p + 3 * n, p + 4 * n};
      };
      ctx.pool.each(parts, [&](int64_t i) {
        const int64_t from = i * plan.slab, have = least(plan.slab, count - from);
        const float* ti = tv ? tv + from * n : nullptr;
        E* fi = teacher_at(v0 + from);
        if (at.one())
          slab_sums<E, true>(sv + from * n, ti, es + (v0 + from) * n, fi, have, n, at, slab(i));
        else
          slab_sums<E, false>(sv + from * n, ti, es + (v0 + from) * n, fi, have, n, at, slab(i));
      });
      for (int64_t i = 0; i < parts; i++) sums.add(slab(i), n, v0 == 0 && i == 0, et != nullptr, q.temperature);
    }
  }

  // e of slab k times these are probabilities.
  float scale_one(int64_t k, int64_t r) const {
    return float(exp_of(double(max_s[k * n + r]) - sums.max_s[r]) / sums.z_one[r]);
  }
  float scale_tau(int64_t k, int64_t r) const {
    return float(exp_of((double(max_s[k * n + r]) - sums.max_s[r]) / q.temperature) / sums.z_tau[r]);
  }
  float scale_teacher(int64_t k, int64_t r) const {
    return float(exp_of((double(max_t[k * n + r]) - sums.max_t[r]) / q.temperature) / sums.z_t[r]);
  }

  void pass2(double* kd, double* inner) const {
    Workspace::Frame frame(ctx.workspace);
    float* scale = frame.take<float>(ctx.threads() * 2 * n);
    each_piece(ctx, slabs(), [&](int64_t piece, int64_t begin, int64_t end) {
      float *ss = scale + piece * 2 * n, *st = ss + n;
      for (int64_t k = begin; k < end; k++) {
        for (int64_t r = 0; r < n; r++) ss[r] = scale_tau(k, r), st[r] = scale_teacher(k, r);
        float *d = work + k * 2 * n, *in = d + n;
        E *e = es + k * plan.slab * n, *f = et + k * plan.slab * n;
        if (at.one())
          slab_js<E, true>(e, f, tokens(k), n, at, ss, st, float(q.epsilon), d, in);
        else
          slab_js<E, false>(e, f, tokens(k), n, at, ss, st, float(q.epsilon), d, in);
      }
    });
    for (int64_t r = 0; r < n; r++) kd[r] = inner[r] = 0;
    for (int64_t k = 0; k < slabs(); k++)
      for (int64_t r = 0; r < n; r++) kd[r] += work[k * 2 * n + r], inner[r] += work[(k * 2 + 1) * n + r];
  }

  void pass3(const double* inner, Block dhidden) const {
    Workspace::Frame frame(ctx.workspace);
    E* d = frame.take<E>(plan.block * n);
    const int64_t most_slabs = (plan.block + plan.slab - 1) / plan.slab;
    float* factor = frame.take<float>(most_slabs * 4 * n);
    const double tau = q.temperature;
    for (int64_t v0 = 0; v0 < q.vocabulary; v0 += plan.block) {
      const int64_t count = least(plan.block, q.vocabulary - v0);
      ctx.pool.each((count + plan.slab - 1) / plan.slab, [&](int64_t i) {
        const int64_t k = v0 / plan.slab + i, from = i * plan.slab;
        float *one = factor + i * 4 * n, *at_tau = one + n, *other = one + 2 * n, *less = one + 3 * n;
        for (int64_t r = 0; r < n; r++) {
          const double c = q.ce_share(rows[r]), t = q.kd_share(rows[r]) * tau;
          one[r] = float(c) * scale_one(k, r);
          less[r] = float(c * q.smoothing / double(q.vocabulary));
          if (!et) continue;
          at_tau[r] = float(q.kind == Distill::js ? -t * inner[r] : t) * scale_tau(k, r);
          other[r] = q.kind == Distill::js ? float(t) : -float(t) * scale_teacher(k, r);
        }
        E *e = es + (v0 + from) * n, *to = d + from * n;
        const int64_t have = least(plan.slab, count - from);
        if (at.one())
          slab_gradient<E, true>(e, teacher_at(v0 + from), to, have, n, at, one, at_tau, other, less);
        else
          slab_gradient<E, false>(e, teacher_at(v0 + from), to, have, n, at, one, at_tau, other, less);
      });
      for (int64_t r = 0; r < n; r++) {
        const int64_t at_label = (int64_t(labels()[rows[r]]) - v0) * n + r;
        if (labels()[rows[r]] < v0 || labels()[rows[r]] >= v0 + count) continue;
        put(d, at_label, get(d, at_label) - float(q.ce_share(rows[r]) * (1 - q.smoothing)));
      }
      Gemm g;
      const Block w = block_of(q.weight, v0);
      g.m = n, g.n = q.width, g.k = count;
      g.a = d, g.a_type = q.compute, g.lda = n, g.a_transposed = true;
      g.b = w.data, g.b_type = w.type, g.ldb = w.ld;
      g.c = dhidden.data, g.ldc = dhidden.ld;
      g.compute = q.compute;
      g.epilogue.accumulate = v0 > 0;
      gemm(ctx, g);
      if (!q.dweight) continue;
      Gemm dw;
      dw.m = count, dw.n = q.width, dw.k = n;
      dw.a = d, dw.a_type = q.compute, dw.lda = n;
      dw.b = hidden.data, dw.b_type = hidden.type, dw.ldb = hidden.ld;
      dw.c = q.dweight.as<float>() + v0 * q.width, dw.ldc = q.width;
      dw.compute = q.compute;
      dw.epilogue.accumulate = true;
      gemm(ctx, dw);
    }
  }
};

template <class E>
void chunk(Context& ctx, const DistillLoss& q, const Plan& plan, const int64_t* rows, int64_t n, const Call& call,
           double& ce_total, double& kd_total) {
  Workspace::Frame frame(ctx.workspace);
  const bool teach = q.kind != Distill::none;
  const int64_t slabs = (q.vocabulary + plan.slab - 1) / plan.slab;
  double* sums = frame.take<double>(10 * n);
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
                   frame.take<float>(slabs * n),
                   teach ? frame.take<float>(slabs * n) : nullptr,
                   q.kind == Distill::js ? frame.take<float>(slabs * 2 * n) : nullptr,
                   {sums, sums + n, sums + 2 * n, sums + 3 * n, sums + 4 * n, sums + 5 * n, sums + 6 * n, sums + 7 * n}};
  double *kd = sums + 8 * n, *inner = sums + 9 * n;
  c.pass1();
  if (q.kind == Distill::js) c.pass2(kd, inner);
  for (int64_t i = 0; i < n; i++) {
    const int64_t r = rows[i];
    const double squared = q.temperature * q.temperature;
    if (q.is_labelled(r)) {
      // lse - (1 - ε)·s_y - ε·mean, each less the row's largest logit.
      const double mean = c.sums.sum[i] / double(q.vocabulary) - c.sums.max_s[i];
      const double ce = std::log(c.sums.z_one[i]) - (1 - q.smoothing) * (c.sums.label[i] - c.sums.max_s[i]) -
                        (q.smoothing > 0 ? q.smoothing * mean : 0);
      call.out[1].as<float>()[r] = float(ce);
      ce_total += ce;
    }
    if (q.distilled(r)) {
      double d = kd[i] / 2;
      if (q.kind == Distill::kl)
        d = c.sums.dot[i] / c.sums.z_t[i] / q.temperature + std::log(c.sums.z_tau[i]) - std::log(c.sums.z_t[i]);
      call.out[2].as<float>()[r] = float(squared * d);
      kd_total += squared * d;
    }
  }
  if (!q.grad) return;
  const bool together = rows[n - 1] - rows[0] + 1 == n;
  const Block d = together ? block_of(call.out[3], rows[0]) : scratch(frame, DType::f32, n, q.width);
  c.pass3(inner, d);
  if (together) return;
  for (int64_t i = 0; i < n; i++)
    std::memcpy(call.out[3].as<float>() + rows[i] * q.width, static_cast<float*>(d.data) + i * q.width,
                size_t(q.width) * 4);
}

}  // namespace

void distill_loss(Context& ctx, const Call& call) {
  const DistillLoss q = distill_loss_call(call);
  Workspace::Frame frame(ctx.workspace);
  // Rows that count for nothing are left out.
  int64_t* rows = frame.take<int64_t>(q.rows);
  int64_t active = 0;
  for (int64_t r = 0; r < q.rows; r++) {
    call.out[1].as<float>()[r] = call.out[2].as<float>()[r] = 0;
    if (q.is_labelled(r) || q.distilled(r)) {
      rows[active++] = r;
    } else if (q.grad) {
      float* d = call.out[3].as<float>() + r * q.width;
      for (int64_t i = 0; i < q.width; i++) d[i] = 0;
    }
  }
  double ce = 0, kd = 0;
  const Plan p = plan(q, active, ctx.threads());
  for (int64_t i = 0; i < active; i += p.rows) {
    const int64_t n = least(p.rows, active - i);
    if (q.compute == DType::bf16)
      chunk<bf16>(ctx, q, p, rows + i, n, call, ce, kd);
    else
      chunk<float>(ctx, q, p, rows + i, n, call, ce, kd);
  }
  ce = q.labelled > 0 ? ce / double(q.labelled) : 0;
  kd = q.positions > 0 ? kd / q.positions : 0;
  float* stats = call.out[0].as<float>();
  stats[0] = float(ce);
  stats[1] = float(kd);
  stats[2] = float(q.ce_weight * ce + q.kd_weight * kd);
  stats[3] = float(q.labelled);
}

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
