// The gated expert FFN in plain loops. For a row x of language l:
//   G = w_out · relu(W_in · drop(x) + b_in),  g = sigmoid(G + alpha·n)
//   y = (1 - g)·FFN_shared(x) + g·drop(FFN_l(x)) [+ residual],  FFN(x) = W2·gelu(W1·x + b1) + b2
// Rows of no language: y = FFN_shared(x), g = 0.
#include "ops/gated_ffn.h"

#include <cmath>

#include "reference/kernels.h"

namespace dw {
namespace reference {

namespace {
double gelu(double v) { return 0.5 * v * (1 + std::erf(v * M_SQRT1_2)); }
double gelu_grad(double v) {
  return 0.5 * (1 + std::erf(v * M_SQRT1_2)) + v * std::exp(-0.5 * v * v) / std::sqrt(2 * M_PI);
}
// out[n] = w[n, k]·in[k] + b[n]
void linear(const View& w, const View* b, const std::vector<double>& in, std::vector<double>& out) {
  out.assign(size_t(w.rows()), 0);
  for (int64_t n = 0; n < w.rows(); n++) {
    double s = 0;
    for (int64_t k = 0; k < w.cols(); k++) s += load(w, n * w.cols() + k) * in[size_t(k)];
    out[size_t(n)] = s + (b ? load(*b, n) : 0);
  }
}
// out[k] = Σ_n w[n, k]·in[n]
void transposed(const View& w, const std::vector<double>& in, std::vector<double>& out) {
  out.assign(size_t(w.cols()), 0);
  for (int64_t n = 0; n < w.rows(); n++)
    for (int64_t k = 0; k < w.cols(); k++) out[size_t(k)] += load(w, n * w.cols() + k) * in[size_t(n)];
}
std::vector<double> row(const View& v, int64_t r, int64_t n) {
  std::vector<double> out(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; i++) out[size_t(i)] = load(v, r * n + i);
  return out;
}
void put_row(const View& v, int64_t r, const std::vector<double>& values) {
  for (size_t i = 0; i < values.size(); i++) store(v, r * int64_t(values.size()) + int64_t(i), values[i]);
}
void accumulate(const View& v, int64_t i, double value) { store(v, i, load(v, i) + value); }

void ffn(const Ffn& f, const std::vector<double>& x, std::vector<double>& pre, std::vector<double>& y) {
  linear(f.fc1, &f.fc1_bias, x, pre);
  std::vector<double> act(pre);
  for (double& v : act) v = gelu(v);
  linear(f.fc2, &f.fc2_bias, act, y);
}
// The language of a row, as a place among `experts`; -1: none.
int64_t language_of(const GatedRows& f, int64_t r) {
  for (size_t l = 0; l < f.experts.size(); l++)
    if (r >= f.experts[l].begin && r < f.experts[l].end) return int64_t(l);
  return -1;
}
// relu(W_in·x + b_in) and G.
double gate(const Expert& e, const std::vector<double>& x, std::vector<double>& hidden) {
  linear(e.gate_in, &e.gate_in_bias, x, hidden);
  double sum = 0;
  for (size_t i = 0; i < hidden.size(); i++) {
    hidden[i] = std::fmax(hidden[i], 0);
    sum += hidden[i] * load(e.gate_out, int64_t(i));
  }
  return sum;
}
// The expert's share of a row.
double share(const GateDraws& draws, double g) { return draws.straight ? (g >= 0.5 ? 1 : 0) : g; }
}  // namespace

void gated_ffn(Context&, const GatedFfn& f) {
  const DropoutDraw of_gate = f.draws.of_gate(), of_expert = f.draws.of_expert();
  std::vector<double> pre, y, pre_expert, expert, hidden;
  for (int64_t r = 0; r < f.rows; r++) {
    const std::vector<double> x = row(f.x, r, f.width);
    ffn(f.shared, x, pre, y);
    put_row(f.pre_shared, r, pre);
    const int64_t l = language_of(f, r);
    double g = 0;
    bool chosen = false;
    if (l >= 0) {
      const Expert& e = f.experts[size_t(l)];
      const int64_t at = e.saved + r - e.begin;
      std::vector<double> dropped(x);
      for (int64_t i = 0; i < f.width; i++) dropped[size_t(i)] *= of_gate.keep(r * f.width + i);
      const double sum = gate(e, dropped, hidden);
      put_row(f.gate_hidden, at, hidden);
      chosen = sum >= 0;
      g = 1 / (1 + std::exp(-(sum + f.draws.alpha * f.draws.noise_of(r))));
      if (!f.draws.skip) {
        ffn(e.ffn, x, pre_expert, expert);
        put_row(f.pre_expert, at, pre_expert);
        for (int64_t i = 0; i < f.width; i++) {
          const double delta = expert[size_t(i)] * of_expert.keep(r * f.width + i) - y[size_t(i)];
          store(f.delta, at * f.width + i, delta);
          y[size_t(i)] += share(f.draws, g) * delta;
        }
      }
    }
    if (f.residual)
      for (int64_t i = 0; i < f.width; i++) y[size_t(i)] += load(f.residual, r * f.width + i);
    put_row(f.y, r, y);
    store(f.g, r, g);
    store(f.chosen, r, chosen ? 1 : 0);
  }
}

void gated_ffn_backward(Context&, const GatedFfnBackward& f) {
  const DropoutDraw of_gate = f.draws.of_gate(), of_expert = f.draws.of_expert();
  std::vector<double> part;
  for (int64_t r = 0; r < f.rows; r++) {
    const std::vector<double> dy = row(f.dy, r, f.width), x = row(f.x, r, f.width);
    std::vector<double> dx(static_cast<size_t>(f.width), 0.0);
    // dx += W1ᵀ·dpre, dpre = gelu'(pre) ⊙ W2ᵀ·d
    auto through = [&](const Ffn& ffn, const View& pre, int64_t at, const std::vector<double>& d) {
      std::vector<double> dpre;
      transposed(ffn.fc2, d, dpre);
      for (int64_t i = 0; i < f.inner; i++) dpre[size_t(i)] *= gelu_grad(load(pre, at * f.inner + i));
      transposed(ffn.fc1, dpre, part);
      for (size_t i = 0; i < dx.size(); i++) dx[i] += part[i];
      return dpre;
    };
    const int64_t l = language_of(f, r);
    const double g = load(f.g, r);
    std::vector<double> d(dy);
    if (l >= 0 && !f.draws.skip)
      for (double& v : d) v *= 1 - share(f.draws, g);
    through(f.shared, f.pre_shared, r, d);
    if (l >= 0) {
      const Expert& e = f.experts[size_t(l)];
      const ExpertGradients& to = f.gradients[size_t(l)];
      const int64_t at = e.saved + r - e.begin;
      double dg = f.dgate ? load(f.dgate, 0) : 0;
      if (!f.draws.skip) {
        for (int64_t i = 0; i < f.width; i++) {
          dg += dy[size_t(i)] * load(f.delta, at * f.width + i);
          d[size_t(i)] = dy[size_t(i)] * share(f.draws, g) * of_expert.keep(r * f.width + i);
        }
        const std::vector<double> dpre = through(e.ffn, f.pre_expert, at, d);
        for (int64_t n = 0; n < f.inner; n++) {
          const double act = gelu(load(f.pre_expert, at * f.inner + n));
          if (to.fc1_bias) accumulate(to.fc1_bias, n, dpre[size_t(n)]);
          for (int64_t k = 0; k < f.width; k++) {
            if (to.fc1) accumulate(to.fc1, n * f.width + k, dpre[size_t(n)] * x[size_t(k)]);
            if (to.fc2) accumulate(to.fc2, k * f.inner + n, d[size_t(k)] * act);
          }
        }
        if (to.fc2_bias)
          for (int64_t k = 0; k < f.width; k++) accumulate(to.fc2_bias, k, d[size_t(k)]);
      }
      // The gate: dG = g(1 - g)·dg.
      const double dG = g * (1 - g) * dg;
      for (int64_t n = 0; n < f.gate; n++) {
        const double h = load(f.gate_hidden, at * f.gate + n);
        if (to.gate_out) accumulate(to.gate_out, n, dG * h);
        const double dh = h > 0 ? dG * load(e.gate_out, n) : 0;
        if (to.gate_in_bias) accumulate(to.gate_in_bias, n, dh);
        for (int64_t k = 0; k < f.width; k++) {
          const double keep = of_gate.keep(r * f.width + k);
          if (to.gate_in) accumulate(to.gate_in, n * f.width + k, dh * x[size_t(k)] * keep);
          dx[size_t(k)] += dh * load(e.gate_in, n * f.width + k) * keep;
        }
      }
    }
    put_row(f.dx, r, dx);
  }
}

void gated_ffn_hard(Context&, const GatedFfnHard& f) {
  std::vector<double> pre, y, hidden;
  for (int64_t r = 0; r < f.rows; r++) {
    const std::vector<double> x = row(f.x, r, f.width);
    const int64_t l = language_of(f, r);
    const bool expert = l >= 0 && gate(f.experts[size_t(l)], x, hidden) >= 0;
    ffn(expert ? f.experts[size_t(l)].ffn : f.shared, x, pre, y);
    if (f.residual)
      for (int64_t i = 0; i < f.width; i++) y[size_t(i)] += load(f.residual, r * f.width + i);
    put_row(f.y, r, y);
    store(f.g, r, expert ? 1 : 0);
  }
}

// mean = Σ g / count, loss = |mean - budget|, dgate = weight·sign(mean - budget) / count
void gate_budget(Context&, const GateBudget& q) {
  double sum = 0, count = 0;
  for (const View& g : q.gates) {
    for (int64_t i = 0; i < g.size(); i++) sum += load(g, i);
    count += double(g.size());
  }
  if (q.rows > 0) count = q.rows;
  const double mean = count > 0 ? sum / count : 0, gap = count > 0 ? mean - q.budget : 0;
  store(q.mean, 0, mean);
  store(q.loss, 0, std::fabs(gap));
  store(q.dgate, 0, gap == 0 ? 0 : q.weight * (gap > 0 ? 1 : -1) / count);
}

}  // namespace reference
}  // namespace dw
