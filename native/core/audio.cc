#include "core/audio.h"

#include <cmath>
#include <string>
#include <vector>

#include "core/error.h"

namespace dw {

void check_samples(const char* op, const float* x, int64_t n) {
  bool good = true;
  for (int64_t i = 0; i < n; i++) good &= std::fabs(x[i]) <= kLargestSample;
  if (good) return;
  int64_t i = 0;
  while (std::fabs(x[i]) <= kLargestSample) i++;
  throw Error("ERR_AUDIO_SAMPLES", std::string(op) +
                                       ": argument 'samples': expected finite samples, nominally from -1 to 1, got " +
                                       std::to_string(x[i]) + " at index " + std::to_string(i));
}

// Slaney's scale: 200/3 Hz per mel up to 1000 Hz, then 27 mels per factor of 6.4.
static double mel_to_hz(double mel) {
  const double step = 200.0 / 3.0, knee = 1000.0 / step;
  return mel < knee ? mel * step : 1000.0 * std::exp(std::log(6.4) / 27.0 * (mel - knee));
}
static double hz_to_mel(double hz) {
  const double step = 200.0 / 3.0;
  return hz < 1000.0 ? hz / step : 1000.0 / step + std::log(hz / 1000.0) / (std::log(6.4) / 27.0);
}

void mel_filters(int mels, float* out) {
  const double top = hz_to_mel(8000.0);
  std::vector<double> edge(size_t(mels) + 2);
  for (int i = 0; i < mels + 2; i++) edge[size_t(i)] = mel_to_hz(top * i / (mels + 1));
  for (int m = 0; m < mels; m++) {
    const double left = edge[size_t(m)], centre = edge[size_t(m) + 1], right = edge[size_t(m) + 2];
    for (int k = 0; k < kBins; k++) {
      const double hz = k * (16000.0 / kFft);
      const double rise = (hz - left) / (centre - left), fall = (right - hz) / (right - centre);
      const double height = rise < fall ? rise : fall;
      out[int64_t(m) * kBins + k] = height > 0 ? float(float(height) * (2.0 / (right - left))) : 0.0f;
    }
  }
}

// The modified Bessel function of order 0 by its power series: every term is positive, so it converges to full
// precision.
static double bessel_i0(double x) {
  double term = 1, sum = 1;
  for (int k = 1; term > sum * 1e-17; k++) {
    const double f = x / (2.0 * k);
    term *= f * f;
    sum += term;
  }
  return sum;
}

double sinc_kernel(double t) {
  const double u = t / kSincHalf;
  if (std::fabs(u) >= 1) return 0;
  const double a = kPi * kSincCutoff * t;
  const double sinc = std::fabs(a) < 1e-9 ? 1.0 : std::sin(a) / a;
  static const double peak = bessel_i0(kSincBeta);
  return kSincCutoff * sinc * bessel_i0(kSincBeta * std::sqrt(1 - u * u)) / peak;
}

const double* sinc_table() {
  static const std::vector<double> table = [] {
    std::vector<double> t(size_t(kSincHalf * kSincSteps) + 4);
    for (size_t i = 0; i < t.size(); i++) t[i] = sinc_kernel((double(i) - 1) / kSincSteps);
    return t;
  }();
  return table.data();
}

}  // namespace dw
