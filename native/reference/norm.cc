// Per row of D columns:
//   mean = Σ x / D      rstd = 1 / sqrt(Σ (x − mean)² / D + eps)      xhat = (x − mean) · rstd      y = xhat · weight +
//   bias
// Backward, with g = dy · weight:
//   dx = rstd · (g − Σ g / D − xhat · Σ (g · xhat) / D) + residual      dweight += Σ_rows dy · xhat      dbias +=
//   Σ_rows dy
#include <cmath>

#include "core/ops.h"

namespace dw {
namespace reference {

void layer_norm(Context &, const Call &call) {
  const View &x = call.in[0], &weight = call.in[1], &bias = call.in[2];
  const int64_t rows = x.rows(), D = x.cols();
  for (int64_t r = 0; r < rows; r++) {
    double mean = 0, variance = 0;
    for (int64_t c = 0; c < D; c++) mean += load(x, r * D + c) / double(D);
    for (int64_t c = 0; c < D; c++) variance += std::pow(load(x, r * D + c) - mean, 2) / double(D);
    const double rstd = 1 / std::sqrt(variance + call.num[0]);
    for (int64_t c = 0; c < D; c++)
      store(call.out[0], r * D + c, (load(x, r * D + c) - mean) * rstd * load(weight, c) + load(bias, c));
    store(call.out[1], r, mean);
    store(call.out[2], r, rstd);
  }
}

void layer_norm_backward(Context &, const Call &call) {
  const View &dy = call.in[0], &x = call.in[1], &weight = call.in[2], &residual = call.in[5];
  const View &dweight = call.in[6], &dbias = call.in[7];
  const int64_t rows = x.rows(), D = x.cols();
  std::vector<double> weight_sum(size_t(D), 0.0), bias_sum(size_t(D), 0.0);
  for (int64_t r = 0; r < rows; r++) {
    const double mean = load(call.in[3], r), rstd = load(call.in[4], r);
    double sum = 0, sum_xhat = 0;
    for (int64_t c = 0; c < D; c++) {
      const double xhat = (load(x, r * D + c) - mean) * rstd, d = load(dy, r * D + c);
      sum += d * load(weight, c);
      sum_xhat += d * load(weight, c) * xhat;
      weight_sum[c] += d * xhat;
      bias_sum[c] += d;
    }
    for (int64_t c = 0; c < D; c++) {
      const double xhat = (load(x, r * D + c) - mean) * rstd, g = load(dy, r * D + c) * load(weight, c);
      const double dx = rstd * (g - sum / double(D) - xhat * sum_xhat / double(D));
      store(call.out[0], r * D + c, dx + (residual ? load(residual, r * D + c) : 0.0));
    }
  }
  for (int64_t c = 0; c < D; c++) {
    if (dweight) store(dweight, c, load(dweight, c) + weight_sum[c]);
    if (dbias) store(dbias, c, load(dbias, c) + bias_sum[c]);
  }
}

}  // namespace reference
}  // namespace dw
