// Per row of D columns:
//   mean = Σ x / D
//   rstd = 1 / sqrt(Σ (x − mean)² / D + eps)
//   y    = xhat · weight + bias,  xhat = (x − mean) · rstd
// Backward, with g = dy · weight:
//   dx       = rstd · (g − Σ g / D − xhat · Σ (g · xhat) / D) + residual
//   dweight += Σ_rows dy · xhat
//   dbias   += Σ_rows dy
#include "ops/norm.h"

#include <cmath>

#include "reference/kernels.h"

namespace dw {
namespace reference {

void layer_norm(Context&, const LayerNorm& q) {
  const View& x = q.x;
  const int64_t rows = x.rows(), D = x.cols();
  for (int64_t r = 0; r < rows; r++) {
    double mean = 0, variance = 0;
    for (int64_t c = 0; c < D; c++) mean += load(x, r * D + c) / double(D);
    for (int64_t c = 0; c < D; c++) variance += std::pow(load(x, r * D + c) - mean, 2) / double(D);
    const double rstd = 1 / std::sqrt(variance + q.epsilon);
    for (int64_t c = 0; c < D; c++)
      store(q.y, r * D + c, (load(x, r * D + c) - mean) * rstd * load(q.weight, c) + load(q.bias, c));
    store(q.mean, r, mean);
    store(q.rstd, r, rstd);
  }
}

void layer_norm_backward(Context&, const LayerNormBackward& q) {
  const View &dy = q.dy, &x = q.x, &weight = q.weight, &residual = q.residual;
  const View &dweight = q.dweight, &dbias = q.dbias;
  const int64_t rows = x.rows(), D = x.cols();
  std::vector<double> weight_sum(size_t(D), 0.0), bias_sum(size_t(D), 0.0);
  for (int64_t r = 0; r < rows; r++) {
    const double mean = load(q.mean, r), rstd = load(q.rstd, r);
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
      store(q.dx, r * D + c, dx + (residual ? load(residual, r * D + c) : 0.0));
    }
  }
  for (int64_t c = 0; c < D; c++) {
    if (dweight) store(dweight, c, load(dweight, c) + weight_sum[c]);
    if (dbias) store(dbias, c, load(dbias, c) + bias_sum[c]);
  }
}

}  // namespace reference
}  // namespace dw
