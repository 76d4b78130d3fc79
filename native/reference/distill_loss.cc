// Per row, with student logits s = W·h, teacher logits t, p = softmax at temperature 1, ps and pt at temperature τ:
//   CE = lse(s) - (1 - ε)·s_y - ε·mean(s)
//   KL = τ²·Σ pt (log pt - log ps)
//   JS = τ²/2·Σ [pt (log pt - log(m + e)) + ps (log ps - log(m + e))],  m = (pt + ps) / 2
// Gradients with respect to s:
//   dCE = p - (1 - ε)·1[y] - ε/V      dKL = τ·(ps - pt)
//   dJS = τ·ps·(a - Σ ps·a),  a = ½(log ps - log(m + e) + e/(m + e))
#include "ops/distill_loss.h"

#include <cmath>

#include "reference/kernels.h"

namespace dw {
namespace reference {

namespace {
std::vector<double> logits(const View& weight, const View& hidden, int64_t r) {
  std::vector<double> out(static_cast<size_t>(weight.rows()), 0.0);
  for (int64_t v = 0; v < weight.rows(); v++)
    for (int64_t i = 0; i < weight.cols(); i++)
      out[size_t(v)] += load(weight, v * weight.cols() + i) * load(hidden, r * weight.cols() + i);
  return out;
}
// log softmax(s / temperature)
std::vector<double> log_softmax(std::vector<double> s, double temperature) {
  double max = -INFINITY, sum = 0;
  for (double v : s) max = std::fmax(max, v);
  for (double v : s) sum += std::exp((v - max) / temperature);
  for (double& v : s) v = (v - max) / temperature - std::log(sum);
  return s;
}
}  // namespace

void distill_loss(Context&, const DistillLoss& loss) {
  const LabelledLoss q(loss);
  const size_t n = size_t(q.vocabulary);
  const double tau = q.temperature;
  double ce_total = 0, kd_total = 0;
  for (int64_t r = 0; r < q.rows; r++) {
    const std::vector<double> s = logits(q.weight, q.hidden, r), log_p = log_softmax(s, 1);
    std::vector<double> ds(n, 0.0);
    double ce = 0, kd = 0;
    if (q.is_labelled(r)) {
      const size_t y = size_t(q.labels.as<int32_t>()[r]);
      double mean = 0;
      for (double v : log_p) mean += v / double(n);
      ce = -(1 - q.smoothing) * log_p[y] - q.smoothing * mean;
      for (size_t v = 0; v < n; v++)
        ds[v] += q.ce_share(r) * (std::exp(log_p[v]) - (v == y ? 1 - q.smoothing : 0) - q.smoothing / double(n));
    }
    if (q.distilled(r)) {
      const std::vector<double> ls = log_softmax(s, tau),
                                lt = log_softmax(logits(q.teacher_weight, q.teacher_hidden, r), tau);
      std::vector<double> a(n, 0.0);
      double inner = 0;
      for (size_t v = 0; v < n; v++) {
        const double ps = std::exp(ls[v]), pt = std::exp(lt[v]);
        if (q.kind == Distill::kl) {
          kd += tau * tau * pt * (lt[v] - ls[v]);
          ds[v] += q.kd_share(r) * tau * (ps - pt);
          continue;
        }
        const double m = (ps + pt) / 2 + q.epsilon, lm = std::log(m);
        if (pt > 0) kd += tau * tau / 2 * pt * (lt[v] - lm);
        if (ps > 0) kd += tau * tau / 2 * ps * (ls[v] - lm);
        if (ps > 0) a[v] = (ls[v] - lm + q.epsilon / m) / 2;
        inner += ps * a[v];
      }
      if (q.kind == Distill::js)
        for (size_t v = 0; v < n; v++) ds[v] += q.kd_share(r) * tau * std::exp(ls[v]) * (a[v] - inner);
    }
    store(q.ce_rows, r, ce);
    store(q.kd_rows, r, kd);
    ce_total += ce;
    kd_total += kd;
    if (!q.grad) continue;
    for (int64_t i = 0; i < q.width; i++) {
      double d = 0;
      for (int64_t v = 0; v < q.vocabulary; v++) {
        const int64_t at = v * q.width + i;
        d += ds[size_t(v)] * load(q.weight, at);
        if (q.dweight) store(q.dweight, at, load(q.dweight, at) + ds[size_t(v)] * load(q.hidden, r * q.width + i));
      }
      store(q.dhidden, r * q.width + i, d);
    }
  }
  const double ce = q.labelled > 0 ? ce_total / double(q.labelled) : 0,
               kd = q.positions > 0 ? kd_total / q.positions : 0;
  store(q.stats, 0, ce);
  store(q.stats, 1, kd);
  store(q.stats, 2, q.ce_weight * ce + q.kd_weight * kd);
  store(q.stats, 3, double(q.labelled));
}

}  // namespace reference
}  // namespace dw
