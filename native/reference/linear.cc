#include "ops/linear.h"

#include <cmath>
#include <vector>

#include "reference/kernels.h"

namespace dw {
namespace reference {

// An operand as the product sees it: in bf16 when it is computed in bf16.
static double operand(double v, DType compute) { return compute == DType::bf16 ? to_float(to_bf16(float(v))) : v; }
static double gelu(double x) { return 0.5 * x * (1.0 + std::erf(x * M_SQRT1_2)); }
static double gelu_grad(double x) {
  return 0.5 * (1.0 + std::erf(x * M_SQRT1_2)) + x * std::exp(-0.5 * x * x) * 0.5 * M_2_SQRTPI * M_SQRT1_2;
}

// A row as it meets a weight in q8 where products run in bf16: whole numbers of 16 bits, times one scale.
static std::vector<double> row16(const View& x, int64_t row) {
  const int64_t k = x.cols();
  std::vector<float> v(static_cast<size_t>(k));
  float largest = 0;
  bool finite = true;
  for (int64_t p = 0; p < k; p++) {
    v[size_t(p)] = float(load(x, row * k + p));
    finite = finite && std::isfinite(v[size_t(p)]);
    largest = std::fmax(largest, std::fabs(v[size_t(p)]));
  }
  const float scale = largest / 32512, inverse = largest < 0x1p-100f ? 0 : 32512 / largest;
  std::vector<double> out(static_cast<size_t>(k));
  for (size_t p = 0; p < out.size(); p++)
    out[p] = finite ? double(std::nearbyint(v[p] * inverse)) * double(scale) : double(NAN);
  return out;
}

void linear(Context&, const Linear& q) {
  const View &x = q.x, &w = q.weight;
  const DType compute = q.compute;
  const bool q8 = w.dtype == DType::q8, in16 = q8 && compute == DType::bf16;
  const DType exact = q8 ? DType::f64 : compute;  // its scales are multiplied by sums
  const int64_t n = w.shape[0], k = w.shape[1];
  std::vector<double> row(static_cast<size_t>(k));
  for (int64_t i = 0; i < x.rows(); i++) {
    if (in16) row = row16(x, i);
    for (int64_t p = 0; p < k && !in16; p++) row[size_t(p)] = operand(load(x, i * k + p), compute);
    for (int64_t j = 0; j < n; j++) {
      double s = 0;
      for (int64_t p = 0; p < k; p++) s += row[size_t(p)] * operand(load(w, j * k + p), exact);
      if (q.bias) s += load(q.bias, j);
      if (q.save_pre) store(q.pre, i * n + j, s);
      if (q.gelu) s = gelu(s);
      if (q.residual) s += load(q.residual, i * n + j);
      store(q.y, i * n + j, s);
    }
  }
}

void linear_backward_input(Context&, const LinearBackwardInput& q) {
  const View &dy = q.dy, &w = q.weight;
  const int64_t n = w.shape[0], k = w.shape[1];
  for (int64_t i = 0; i < dy.rows(); i++)
    for (int64_t j = 0; j < k; j++) {
      double s = 0;
      for (int64_t p = 0; p < n; p++)
        s += operand(load(dy, i * n + p), q.compute) * operand(load(w, p * k + j), q.compute);
      if (q.gelu_of) s *= gelu_grad(load(q.gelu_of, i * k + j));
      if (q.residual) s += load(q.residual, i * k + j);
      store(q.dx, i * k + j, s);
    }
}

void linear_backward_weight(Context&, const LinearBackwardWeight& q) {
  const View &dy = q.dy, &x = q.x, &dweight = q.dweight, &dbias = q.dbias;
  const int64_t rows = dy.rows(), n = dy.cols(), k = x.cols();
  for (int64_t i = 0; i < n; i++) {
    for (int64_t j = 0; dweight && j < k; j++) {
      double s = 0;
      for (int64_t r = 0; r < rows; r++) {
        const double v = load(x, r * k + j);
        s += operand(load(dy, r * n + i), q.compute) * operand(q.x_gelu ? gelu(v) : v, q.compute);
      }
      store(dweight, i * k + j, load(dweight, i * k + j) + s);
    }
    if (!dbias) continue;
    double s = load(dbias, i);
    for (int64_t r = 0; r < rows; r++) s += load(dy, r * n + i);
    store(dbias, i, s);
  }
}

void quantize(Context&, const Quantize& a) {
  const View &w = a.weight, &q = a.quantized;
  for (int64_t i = 0; i < w.rows(); i++) {
    float top = 0;
    for (int64_t p = 0; p < w.cols(); p++) {
      const float size = std::fabs(float(load(w, i * w.cols() + p)));
      if (!(size <= top)) top = size;
    }
    const float scale = top / 127;
    int8_t* row = const_cast<int8_t*>(q8_row(q, i));
    for (int64_t p = 0; p < w.cols(); p++)
      row[p] = scale > 0 && std::isfinite(scale) ? int8_t(std::nearbyint(float(load(w, i * w.cols() + p)) / scale)) : 0;
    std::memcpy(row + w.cols(), &scale, sizeof scale);
  }
}

void unfold(Context&, const Unfold& q) {
  const View &x = q.x, &y = q.y;
  const int64_t rows = y.shape[1], channels = q.channels(), length = q.length();
  for (int64_t b = 0; b < x.shape[0]; b++)
    for (int64_t t = 0; t < rows; t++)
      for (int64_t ch = 0; ch < channels; ch++)
        for (int64_t j = 0; j < 3; j++) {
          const int64_t s = t * q.stride + j - 1;
          const int64_t from = q.channels_first ? (b * channels + ch) * length + s : (b * length + s) * channels + ch;
          store(y, ((b * rows + t) * channels + ch) * 3 + j, s < 0 || s >= length ? 0.0 : load(x, from));
        }
}

void fold(Context&, const Fold& q) {
  const View &dy = q.rows, &dx = q.dx;
  const int64_t stride = q.stride, rows = dy.shape[1], length = dx.shape[1], channels = dx.shape[2];
  for (int64_t b = 0; b < dx.shape[0]; b++)
    for (int64_t s = 0; s < length; s++)
      for (int64_t ch = 0; ch < channels; ch++) {
        double sum = 0;
        for (int64_t j = 0; j < 3; j++) {
          const int64_t t = s + 1 - j;
          if (t >= 0 && t % stride == 0 && t / stride < rows)
            sum += load(dy, ((b * rows + t / stride) * channels + ch) * 3 + j);
        }
        store(dx, (b * length + s) * channels + ch, sum);
      }
}

}  // namespace reference
}  // namespace dw
