// The gated expert FFN in plain loops. For a row x of language l:
//   G = w_out · relu(W_in · drop(x) + b_in),  g = sigmoid(G + alpha·n)
//   y = (1 - g)·FFN_shared(x) + g·drop(FFN_l(x)) [+ residual],  FFN(x) = W2·gelu(W1·x + b1) + b2
// Rows of no language: y = FFN_shared(x), g = 0.
#include "ops/gated_ffn.h"

#include <cmath>

#include "core/ops.h"

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

// The four tensors of an FFN start at position i.
void ffn(const Call& call, size_t i, const std::vector<double>& x, std::vector<double>& pre, std::vector<double>& y) {
  linear(call.in[i], &call.in[i + 1], x, pre);
  std::vector<double> act(pre);
  for (double& v : act) v = gelu(v);
  linear(call.in[i + 2], &call.in[i + 3], act, y);
}
int64_t language_of(const GatedFfn& f, int64_t r) {
  for (int64_t l = 0; l < f.languages; l++)
    if (r >= f.begin(l) && r < f.end(l)) return l;
  return -1;
}
// relu(W_in·x + b_in) and G.
double gate(const GatedFfn& f, int64_t l, const std::vector<double>& x, std::vector<double>& hidden) {
  linear(f.at(f.expert(l, kGateInW)), &f.at(f.expert(l, kGateInB)), x, hidden);
  double sum = 0;
  for (size_t i = 0; i < hidden.size(); i++) {
    hidden[i] = std::fmax(hidden[i], 0);
    sum += hidden[i] * load(f.at(f.expert(l, kGateOutW)), int64_t(i));
  }
  return sum;
}
}  // namespace

void gated_ffn(Context&, const Call& call) {
  const GatedFfn f = gated_ffn_call(call);
  std::vector<double> pre, y, pre_expert, expert, hidden;
  for (int64_t r = 0; r < f.rows; r++) {
    const std::vector<double> x = row(f.at(f.x), r, f.width);
    ffn(call, f.shared, x, pre, y);
    put_row(call.out[3], r, pre);
    const int64_t l = language_of(f, r);
    double g = 0;
    if (l >= 0) {
      const int64_t at = f.saved_row(l) + r - f.begin(l);
      std::vector<double> dropped(x);
      for (int64_t i = 0; i < f.width; i++) dropped[size_t(i)] *= gate_keep(f, r * f.width + i);
      const double sum = gate(f, l, dropped, hidden);
      put_row(call.out[2], at, hidden);
      g = 1 / (1 + std::exp(-(sum + f.alpha() * gate_noise(f, r))));
      if (!f.skip()) {
        ffn(call, f.expert(l, kFc1W), x, pre_expert, expert);
        put_row(call.out[4], at, pre_expert);
        for (int64_t i = 0; i < f.width; i++) {
          const double delta = expert[size_t(i)] * expert_keep(f, r * f.width + i) - y[size_t(i)];
          store(call.out[5], at * f.width + i, delta);
          y[size_t(i)] += g * delta;
        }
      }
    }
    if (f.at(f.residual))
      for (int64_t i = 0; i < f.width; i++) y[size_t(i)] += load(f.at(f.residual), r * f.width + i);
    put_row(call.out[0], r, y);
    store(call.out[1], r, g);
  }
}

void gated_ffn_backward(Context&, const Call& call) {
  const GatedFfn f = gated_ffn_backward_call(call);
  const View &g_saved = f.at(f.saved), &hidden = f.at(f.saved + 1), &pre_shared = f.at(f.saved + 2),
             &pre_expert = f.at(f.saved + 3), &delta = f.at(f.saved + 4);
  std::vector<double> part;
  for (int64_t r = 0; r < f.rows; r++) {
    const std::vector<double> dy = row(call.in[0], r, f.width), x = row(f.at(f.x), r, f.width);
    std::vector<double> dx(static_cast<size_t>(f.width), 0.0);
    // dx += W1ᵀ·dpre, dpre = gelu'(pre) ⊙ W2ᵀ·d
    auto through = [&](size_t fc1, size_t fc2, const View& pre, int64_t at, const std::vector<double>& d) {
      std::vector<double> dpre;
      transposed(f.at(fc2), d, dpre);
      for (int64_t i = 0; i < f.inner; i++) dpre[size_t(i)] *= gelu_grad(load(pre, at * f.inner + i));
      transposed(f.at(fc1), dpre, part);
      for (size_t i = 0; i < dx.size(); i++) dx[i] += part[i];
      return dpre;
    };
    const int64_t l = language_of(f, r);
    const double g = load(g_saved, r);
    std::vector<double> d(dy);
    if (l >= 0 && !f.skip())
      for (double& v : d) v *= 1 - g;
    through(f.shared, f.shared + 2, pre_shared, r, d);
    if (l >= 0) {
      const int64_t at = f.saved_row(l) + r - f.begin(l);
      double dg = call.in[1] ? load(call.in[1], 0) : 0;
      if (!f.skip()) {
        for (int64_t i = 0; i < f.width; i++) {
          dg += dy[size_t(i)] * load(delta, at * f.width + i);
          d[size_t(i)] = dy[size_t(i)] * g * expert_keep(f, r * f.width + i);
        }
        const std::vector<double> dpre = through(f.expert(l, kFc1W), f.expert(l, kFc2W), pre_expert, at, d);
        const View &dw1 = f.at(f.gradient(l, kFc1W)), &db1 = f.at(f.gradient(l, kFc1B)),
                   &dw2 = f.at(f.gradient(l, kFc2W)), &db2 = f.at(f.gradient(l, kFc2B));
        for (int64_t n = 0; n < f.inner; n++) {
          const double act = gelu(load(pre_expert, at * f.inner + n));
          if (db1) accumulate(db1, n, dpre[size_t(n)]);
          for (int64_t k = 0; k < f.width; k++) {
            if (dw1) accumulate(dw1, n * f.width + k, dpre[size_t(n)] * x[size_t(k)]);
            if (dw2) accumulate(dw2, k * f.inner + n, d[size_t(k)] * act);
          }
        }
        if (db2)
          for (int64_t k = 0; k < f.width; k++) accumulate(db2, k, d[size_t(k)]);
      }
      // The gate: dG = g(1 - g)·dg.
      const double dG = g * (1 - g) * dg;
      const View &dwi = f.at(f.gradient(l, kGateInW)), &dbi = f.at(f.gradient(l, kGateInB)),
                 &dwo = f.at(f.gradient(l, kGateOutW));
      for (int64_t n = 0; n < f.gate; n++) {
        const double h = load(hidden, at * f.gate + n);
        if (dwo) accumulate(dwo, n, dG * h);
        const double dh = h > 0 ? dG * load(f.at(f.expert(l, kGateOutW)), n) : 0;
        if (dbi) accumulate(dbi, n, dh);
        for (int64_t k = 0; k < f.width; k++) {
          const double keep = gate_keep(f, r * f.width + k);
          if (dwi) accumulate(dwi, n * f.width + k, dh * x[size_t(k)] * keep);
          dx[size_t(k)] += dh * load(f.at(f.expert(l, kGateInW)), n * f.width + k) * keep;
        }
      }
    }
    put_row(call.out[0], r, dx);
  }
}

void gated_ffn_hard(Context&, const Call& call) {
  const GatedFfn f = gated_ffn_hard_call(call);
  std::vector<double> pre, y, hidden;
  for (int64_t r = 0; r < f.rows; r++) {
    const std::vector<double> x = row(f.at(f.x), r, f.width);
    const int64_t l = language_of(f, r);
    const bool expert = l >= 0 && gate(f, l, x, hidden) >= 0;
    ffn(call, expert ? f.expert(l, kFc1W) : f.shared, x, pre, y);
    if (f.at(f.residual))
      for (int64_t i = 0; i < f.width; i++) y[size_t(i)] += load(f.at(f.residual), r * f.width + i);
    put_row(call.out[0], r, y);
    store(call.out[1], r, expert ? 1 : 0);
  }
}

// mean = Σ g / count, loss = |mean - budget|, dgate = weight·sign(mean - budget) / count
void gate_budget(Context&, const Call& call) {
  double sum = 0, count = 0;
  for (const View& g : call.in) {
    for (int64_t i = 0; i < g.size(); i++) sum += load(g, i);
    count += double(g.size());
  }
  const double budget = call.num[0], weight = call.num[1];
  if (call.num[2] > 0) count = call.num[2];
  const double mean = count > 0 ? sum / count : 0, gap = count > 0 ? mean - budget : 0;
  store(call.out[0], 0, mean);
  store(call.out[1], 0, std::fabs(gap));
  store(call.out[2], 0, gap == 0 ? 0 : weight * (gap > 0 ? 1 : -1) / count);
}

}  // namespace reference
}  // namespace dw
