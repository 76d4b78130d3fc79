// global_norm and adamw; see reference/optimizer.cc for the formulas. Both are bound by memory: one pass each.
#include "ops/optimizer.h"

#include <cmath>

#include "cpu/isa.h"

namespace dw {
namespace cpu {
namespace DW_ISA {
namespace {

constexpr int64_t kPiece = 1 << 16;

double sum_of_squares(const float* g, int64_t n) {
  double s[16] = {};
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int l = 0; l < 16; l++) s[l] += double(g[i + l]) * double(g[i + l]);
  for (; i < n; i++) s[0] += double(g[i]) * double(g[i]);
  double sum = 0;
  for (int l = 0; l < 16; l++) sum += s[l];
  return sum;
}

struct Rule {
  float scale, beta1, rest1, beta2, rest2;  // rest = 1 - beta
  float keep;                               // 1 - lr·weight_decay
};

// p·before - step·m / (sqrt(v)·root + eps), then ·after.
void update(const Rule& r, float before, float after, float step, float root, float eps, int64_t n, float* __restrict p,
            const float* __restrict g, float* __restrict m, float* __restrict v) {
  for (int64_t i = 0; i < n; i++) {
    const float d = g[i] * r.scale;
    const float m1 = r.beta1 * m[i] + r.rest1 * d, v1 = r.beta2 * v[i] + r.rest2 * d * d;
    const float q = (p[i] * before - step * m1 / (std::sqrt(v1) * root + eps)) * after;
    m[i] = m1;
    v[i] = v1;
    p[i] = q;
  }
}

}  // namespace

void global_norm(Context& ctx, const GlobalNorm& q) {
  int64_t pieces = 0;
  for (const View& g : q.gradients) pieces += (g.size() + kPiece - 1) / kPiece;
  Workspace::Frame frame(ctx.workspace);
  struct Piece {
    const float* data;
    int64_t count;
    double sum;
  };
  Piece* piece = frame.take<Piece>(pieces);
  int64_t at = 0;
  for (const View& g : q.gradients)
    for (int64_t i = 0; i < g.size(); i += kPiece)
      piece[at++] = {g.as<float>() + i, g.size() - i < kPiece ? g.size() - i : kPiece, 0.0};
  ctx.pool.split(pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) piece[i].sum = sum_of_squares(piece[i].data, piece[i].count);
  });
  // Pieces do not depend on the number of threads, nor does the order of their sums.
  double sum = 0;
  for (int64_t i = 0; i < pieces; i++) sum += piece[i].sum;
  const double max_norm = q.max_norm, a = q.gradient_scale, norm = a * std::sqrt(sum);
  const double clip = max_norm > 0 && max_norm < norm + 1e-6 ? max_norm / (norm + 1e-6) : 1;
  *q.norm.as<float>() = float(norm);
  *q.scale.as<float>() = std::isfinite(float(norm)) ? float(a * clip) : 0.0f;
}

void adamw(Context& ctx, const AdamW& q) {
  const float scale = *q.scale.as<float>();
  if (scale == 0) return;
  const double lr = q.lr, beta1 = q.beta1, beta2 = q.beta2, eps = q.epsilon;
  const bool bias_in_eps = q.mode == 0;
  const Rule rule = {scale,        float(beta1),     float(1 - beta1),
                     float(beta2), float(1 - beta2), float(1 - lr * q.weight_decay)};
  int64_t total = 0;
  for (const AdamW::Group& a : q.groups)
    if (a.step != 0) total += a.p.size();
  ctx.pool.split(total, 4096, [&](int64_t begin, int64_t end) {
    int64_t at = 0;
    for (const AdamW::Group& a : q.groups) {
      if (at >= end) break;
      const double t = double(a.step);
      if (t == 0) continue;
      const int64_t size = a.p.size();
      const int64_t from = begin > at ? begin - at : 0, to = end - at < size ? end - at : size;
      at += size;
      if (from >= to) continue;
      const double c1 = 1 - std::pow(beta1, t), c2 = 1 - std::pow(beta2, t);
      const float step = float(bias_in_eps ? lr / c1 : lr * std::sqrt(c2) / c1);
      const float root = bias_in_eps ? float(1 / std::sqrt(c2)) : 1.0f;
      const float before = bias_in_eps ? rule.keep : 1.0f, after = bias_in_eps ? 1.0f : rule.keep;
      float *p = a.p.as<float>() + from, *m = a.m.as<float>() + from, *v = a.v.as<float>() + from;
      const float* g = a.gradient.as<float>() + from;
      update(rule, before, after, step, root, float(eps), to - from, p, g, m, v);
    }
  });
}

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
