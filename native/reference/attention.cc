// Per batch item and head of width w = D / heads, with scale = w^-0.5:
//   s[i, j] = scale · q[i] · k[j]   for j < kv_len, and j ≤ i + q_offset when causal
//   lse[i]  = log Σ_j exp(s[i, j])          p[i, j] = exp(s[i, j] − lse[i])          o[i] = Σ_j p[i, j] · v[j]
// Backward:
//   dv[j] = Σ_i p[i, j] · do[i]      ds[i, j] = p[i, j] · (do[i] · v[j] − do[i] · o[i])
//   dq[i] = scale · Σ_j ds[i, j] · k[j]      dk[j] = scale · Σ_i ds[i, j] · q[i]
#include "ops/attention.h"

#include <algorithm>
#include <cmath>

#include "reference/kernels.h"

namespace dw {
namespace reference {

namespace {

double dot(const View& a, int64_t i, const View& b, int64_t j, int64_t n) {
  double s = 0;
  for (int64_t c = 0; c < n; c++) s += load(a, i + c) * load(b, j + c);
  return s;
}

}  // namespace

void attention(Context&, const Attention& a) {
  const View &q = a.q, &k = a.k, &v = a.v;
  const int64_t heads = a.heads, kv_len = a.kv_len;
  const int64_t B = q.shape[0], Tq = q.shape[1], Tk = k.shape[1], D = q.shape[2], w = D / heads;
  const double scale = 1.0 / std::sqrt(double(w));
  std::vector<double> s(static_cast<size_t>(kv_len));
  for (int64_t b = 0; b < B; b++)
    for (int64_t h = 0; h < heads; h++)
      for (int64_t i = 0; i < Tq; i++) {
        const int64_t row = (b * Tq + i) * D + h * w, keys = a.causal ? std::min(kv_len, i + a.q_offset + 1) : kv_len;
        double top = -INFINITY, sum = 0;
        for (int64_t j = 0; j < keys; j++) {
          s[j] = scale * dot(q, row, k, (b * Tk + j) * D + h * w, w);
          top = std::max(top, s[j]);
        }
        for (int64_t j = 0; j < keys; j++) sum += std::exp(s[j] - top);
        for (int64_t c = 0; c < w; c++) {
          double y = 0;
          for (int64_t j = 0; j < keys; j++) y += std::exp(s[j] - top) / sum * load(v, (b * Tk + j) * D + h * w + c);
          store(a.o, row + c, y);
        }
        store(a.lse, (b * heads + h) * Tq + i, top + std::log(sum));
      }
}

void attention_backward(Context&, const AttentionBackward& a) {
  const View &q = a.q, &k = a.k, &v = a.v, &dout = a.dout;
  const int64_t heads = a.heads;
  const int64_t B = q.shape[0], Tq = q.shape[1], Tk = k.shape[1], D = q.shape[2], w = D / heads;
  const double scale = 1.0 / std::sqrt(double(w));
  std::vector<double> dq(size_t(q.size()), 0.0), dk(size_t(k.size()), 0.0), dv(size_t(v.size()), 0.0);
  for (int64_t b = 0; b < B; b++)
    for (int64_t h = 0; h < heads; h++)
      for (int64_t i = 0; i < Tq; i++) {
        const int64_t row = (b * Tq + i) * D + h * w, keys = a.causal ? std::min(Tk, i + 1) : Tk;
        const double delta = dot(dout, row, a.o, row, w);
        for (int64_t j = 0; j < keys; j++) {
          const int64_t key = (b * Tk + j) * D + h * w;
          const double p = std::exp(scale * dot(q, row, k, key, w) - load(a.lse, (b * heads + h) * Tq + i));
          const double ds = p * (dot(dout, row, v, key, w) - delta);
          for (int64_t c = 0; c < w; c++) {
            dv[key + c] += p * load(dout, row + c);
            dq[row + c] += scale * ds * load(k, key + c);
            dk[key + c] += scale * ds * load(q, row + c);
          }
        }
      }
  for (int64_t i = 0; i < q.size(); i++) store(a.dq, i, dq[i]);
  for (int64_t i = 0; i < k.size(); i++) store(a.dk, i, dk[i]);
  for (int64_t i = 0; i < v.size(); i++) store(a.dv, i, dv[i]);
}

}  // namespace reference
}  // namespace dw
