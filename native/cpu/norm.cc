// Layer normalisation, forward and backward; the formulas stand in reference/norm.cc.
// Mean and variance in two passes with the first-order corrections Σd and (Σd)²/D, d = x − mean (Chan, Golub, LeVeque
// 1983).
#include "ops/norm.h"

#include <cfloat>
#include <cmath>
#include <type_traits>

#include "cpu/isa.h"
#include "cpu/simd/elements.h"

namespace dw {
namespace cpu {
namespace DW_ISA {

namespace {

constexpr int64_t kGrain = 1 << 14;  // elements below which a row range is not worth another thread
constexpr int64_t kBlocks = 64;      // row blocks whose column sums are kept apart and then added in order

template <class T>
void statistics_of(const T* x, int64_t D, double eps, float* mean, float* rstd) {
  float sum = 0;
  for (int64_t c = 0; c < D; c++) sum += get(x, c);
  float centre = sum / float(D), first = 0, second = 0;
  for (int64_t c = 0; c < D; c++) {
    const float d = get(x, c) - centre;
    first += d;
    second += d * d;
  }
  const float shift = first / float(D), variance = second / float(D) - shift * shift;
  if (variance <= FLT_MAX && variance >= 0) {
    *mean = centre + shift;
    *rstd = 1.0f / std::sqrt(variance + float(eps));
    return;
  }
  // The squares left fp32's range (or x holds inf or NaN, which stay what they are).
  double wide_mean = 0, wide_variance = 0;
  for (int64_t c = 0; c < D; c++) wide_mean += double(get(x, c)) / double(D);
  for (int64_t c = 0; c < D; c++) {
    const double d = double(get(x, c)) - wide_mean;
    wide_variance += d * d / double(D);
  }
  *mean = float(wide_mean);
  *rstd = float(1.0 / std::sqrt(wide_variance + eps));
}

template <class T, class O>
void forward(Context& ctx, const LayerNorm& q, const T* x, O* y) {
  const int64_t rows = q.x.rows(), D = q.x.cols();
  const float *weight = q.weight.as<float>(), *bias = q.bias.as<float>();
  float *means = q.mean.as<float>(), *rstds = q.rstd.as<float>();
  const double eps = q.epsilon;
  ctx.pool.split(rows, kGrain / D + 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      statistics_of(x + r * D, D, eps, means + r, rstds + r);
      const float mean = means[r], rstd = rstds[r];
      for (int64_t c = 0; c < D; c++) put(y, r * D + c, (get(x, r * D + c) - mean) * rstd * weight[c] + bias[c]);
    }
  });
}

template <class G, class T>
void sums_of(const G* dy, const T* x, const float* weight, float mean, float rstd, int64_t D, float* sum, float* dot) {
  float s = 0, t = 0;
  for (int64_t c = 0; c < D; c++) {
    const float g = get(dy, c) * weight[c];
    s += g;
    t += g * ((get(x, c) - mean) * rstd);
  }
  *sum = s / float(D);
  *dot = t / float(D);
}

template <class G, class T, class O, class R>
void input_row(const G* dy, const T* x, const R* residual, const float* weight, float mean, float rstd, int64_t D,
               O* dx) {
  float sum, dot;
  sums_of(dy, x, weight, mean, rstd, D, &sum, &dot);
  for (int64_t c = 0; c < D; c++) {
    const float d = rstd * (get(dy, c) * weight[c] - sum - (get(x, c) - mean) * rstd * dot);
    put(dx, c, residual ? d + get(residual, c) : d);
  }
}

template <class G, class T, class O>
void backward(Context& ctx, const LayerNormBackward& q, const G* dy, const T* x, O* dx) {
  const int64_t rows = q.x.rows(), D = q.x.cols();
  const float *weight = q.weight.as<float>(), *means = q.mean.as<float>(), *rstds = q.rstd.as<float>();
  const View& residual = q.residual;
  float* dweight = q.dweight ? q.dweight.as<float>() : nullptr;
  float* dbias = q.dbias ? q.dbias.as<float>() : nullptr;
  const bool sums = dweight || dbias;
  int64_t blocks = (rows * D + kGrain - 1) / kGrain;
  if (blocks > kBlocks) blocks = kBlocks;
  if (blocks > rows) blocks = rows;
  Workspace::Frame frame(ctx.workspace);
  float* partial = frame.take<float>(sums ? blocks * 2 * D : 0);
  ctx.pool.each(blocks, [&](int64_t block) {
    float *pw = partial + block * 2 * D, *pb = pw + D;
    if (sums)
      for (int64_t c = 0; c < 2 * D; c++) pw[c] = 0;
    for (int64_t r = rows * block / blocks; r < rows * (block + 1) / blocks; r++) {
      const float mean = means[r], rstd = rstds[r];
      const G* g = dy + r * D;
      const T* row = x + r * D;
      if (residual && residual.dtype == DType::bf16)
        input_row(g, row, residual.as<bf16>() + r * D, weight, mean, rstd, D, dx + r * D);
      else
        input_row(g, row, residual ? residual.as<float>() + r * D : static_cast<float*>(nullptr), weight, mean, rstd, D,
                  dx + r * D);
      if (sums)
        for (int64_t c = 0; c < D; c++) {
          pw[c] += get(g, c) * ((get(row, c) - mean) * rstd);
          pb[c] += get(g, c);
        }
    }
  });
  if (!sums) return;
  for (int64_t c = 0; c < D; c++) {
    float sw = 0, sb = 0;
    for (int64_t block = 0; block < blocks; block++) {
      sw += partial[block * 2 * D + c];
      sb += partial[block * 2 * D + D + c];
    }
    if (dweight) dweight[c] += sw;
    if (dbias) dbias[c] += sb;
  }
}

}  // namespace

void layer_norm(Context& ctx, const LayerNorm& q) {
  with_type(q.x.dtype, [&](auto* t) {
    with_type(q.y.dtype, [&](auto* o) {
      forward(ctx, q, q.x.as<std::remove_pointer_t<decltype(t)>>(), q.y.as<std::remove_pointer_t<decltype(o)>>());
    });
  });
}

void layer_norm_backward(Context& ctx, const LayerNormBackward& q) {
  with_type(q.dy.dtype, [&](auto* g) {
    with_type(q.x.dtype, [&](auto* t) {
      with_type(q.dx.dtype, [&](auto* o) {
        backward(ctx, q, q.dy.as<std::remove_pointer_t<decltype(g)>>(), q.x.as<std::remove_pointer_t<decltype(t)>>(),
                 q.dx.as<std::remove_pointer_t<decltype(o)>>());
      });
    });
  });
}

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
