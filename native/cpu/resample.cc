// resample: samples [n] → [ceil(n · to / from)]; see reference/mel.cc for the formula.
// Output j stands at j·M/L input samples (L/M = to/from in lowest terms); its position between two samples takes L
// values, each with a row of coefficients of its own: one dot product per output. When that table would be large, 1024
// positions per sample of the lower rate are tabulated instead and neighbouring rows are interpolated linearly (error
// below -110 dB).
#include <cmath>

#include "core/audio.h"
#include "cpu/isa.h"
#include "cpu/simd/vec.h"
#include "ops/mel.h"

namespace dw {
namespace cpu {
namespace DW_ISA {
namespace {

constexpr int64_t kLargestTable = 1 << 18;

// Coefficients of the `taps` samples around a point that lies `part` beyond sample half - 1; they sum to 1.
void make_row(const double* table, double part, double scale, int64_t taps, int64_t padded, float* row) {
  const double end = double(kSincHalf * kSincSteps);
  double sum = 0;
  for (int64_t k = 0; k < taps; k++) {
    double t = std::fabs((double(k - taps / 2 + 1) - part) * scale) * kSincSteps;
    t = t < end ? t : end;
    const int i = int(t);
    const double f = t - i, *h = table + i;
    const double value = -f * (f - 1) * (f - 2) * (1.0 / 6) * h[0] + (f * f - 1) * (f - 2) * 0.5 * h[1] -
                         f * (f + 1) * (f - 2) * 0.5 * h[2] + f * (f * f - 1) * (1.0 / 6) * h[3];
    row[k] = float(value);
    sum += value;
  }
  const float unit = float(1 / sum);
  for (int64_t k = 0; k < taps; k++) row[k] *= unit;
  for (int64_t k = taps; k < padded; k++) row[k] = 0;
}

// Four dot products with the same row.
inline void dot4(const float* row, const float* x, int64_t step, int64_t taps, float* y) {
  Vec a0 = {}, a1 = {}, a2 = {}, a3 = {};
  for (int64_t k = 0; k < taps; k += kLanes) {
    const Vec h = load_vec(row + k);
    a0 += h * load_vec(x + k);
    a1 += h * load_vec(x + step + k);
    a2 += h * load_vec(x + 2 * step + k);
    a3 += h * load_vec(x + 3 * step + k);
  }
  y[0] = total(a0);
  y[1] = total(a1);
  y[2] = total(a2);
  y[3] = total(a3);
}

inline float dot_between(const float* row, const float* next, float f, const float* x, int64_t taps) {
  Vec a0 = {}, a1 = {}, b0 = {}, b1 = {};
  for (int64_t k = 0; k < taps; k += 2 * kLanes) {
    const Vec v0 = load_vec(x + k), v1 = load_vec(x + k + kLanes);
    a0 += load_vec(row + k) * v0;
    a1 += load_vec(row + k + kLanes) * v1;
    b0 += load_vec(next + k) * v0;
    b1 += load_vec(next + k + kLanes) * v1;
  }
  return total((a0 + a1) * (1 - f) + (b0 + b1) * f);
}

}  // namespace

void resample(Context& ctx, const Resample& q) {
  const float* x = q.samples.as<float>();
  float* y = q.resampled.as<float>();
  const int64_t n = q.samples.size(), m = q.resampled.size(), from = q.from_rate, to = q.to_rate;
  check_samples("resample", x, n);
  if (m == 0) return;
  if (from == to) {
    std::memcpy(y, x, size_t(n) * 4);
    return;
  }
  int64_t divisor = from, rest = to;
  while (rest != 0) {
    const int64_t r = divisor % rest;
    divisor = rest;
    rest = r;
  }
  const int64_t M = from / divisor, L = to / divisor;
  const double scale = to < from ? double(to) / double(from) : 1.0;
  const int64_t taps = 2 * int64_t(std::ceil(kSincHalf / scale)), padded = (taps + 31) / 32 * 32;
  const bool exact = L * padded <= kLargestTable;
  const int64_t positions = exact ? L : int64_t(std::ceil(1024 * scale));
  const int64_t rows = exact ? L : positions + 1;

  Workspace::Frame frame(ctx.workspace);
  float* table = frame.take<float>(rows * padded);
  const double* prototype = sinc_table();
  ctx.pool.split(rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++)
      make_row(prototype, double(r) / double(positions), scale, taps, padded, table + r * padded);
  });
  // signal[i] is sample i - (taps / 2 - 1): the first sample under the row of an output at [i, i + 1).
  const int64_t before = taps / 2 - 1;
  float* signal = frame.take<float>(n + before + padded + 1);
  std::memset(signal, 0, size_t(before) * 4);
  std::memcpy(signal + before, x, size_t(n) * 4);
  std::memset(signal + before + n, 0, size_t(padded + 1) * 4);

  if (exact) {
    // Outputs j, j + L, j + 2L, j + 3L share a row and lie M samples apart.
    ctx.pool.split((m + 4 * L - 1) / (4 * L) * L, 32, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        const int64_t j = i / L * 4 * L + i % L;
        const float* row = table + j * M % L * padded;
        if (j + 3 * L < m) {
          float v[4];
          dot4(row, signal + j * M / L, M, padded, v);
          for (int64_t b = 0; b < 4; b++) y[j + b * L] = v[b];
        } else {
          for (int64_t k = j; k < m; k += L) {
            float v[4];
            dot4(row, signal + k * M / L, 0, padded, v);
            y[k] = v[0];
          }
        }
      }
    });
  } else {
    ctx.pool.split(m, 128, [&](int64_t begin, int64_t end) {
      for (int64_t j = begin; j < end; j++) {
        const double part = double(j * M % L) / double(L) * double(positions);
        const int64_t r = int64_t(part);
        y[j] = dot_between(table + r * padded, table + (r + 1) * padded, float(part - double(r)), signal + j * M / L,
                           padded);
      }
    });
  }
}

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
