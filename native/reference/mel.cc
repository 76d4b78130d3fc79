// The audio kernels as plain sums in double.
//   log_mel   X[k, t] = Σ_j w[j] · x[160·t + j - 200] · e^(-2πi·jk/400),  w[j] = ½ - ½·cos(2πj/400),
//             x mirrored at both ends;
//             y[m, t] = log10(max(1e-10, Σ_k filters[m, k] · |X[k, t]|²));  out = (max(y, max y - 8) + 4) / 4
//   resample  y[j] = Σ_i x[i]·h((i - c)·s) / Σ_i h((i - c)·s),  c = j·from/to,  s = min(1, to/from)
#include "ops/mel.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/audio.h"
#include "reference/kernels.h"

namespace dw {
namespace reference {

void log_mel(Context&, const LogMel& q) {
  const View &samples = q.samples, &filters = q.filters, &out = q.features;
  const int64_t mels = out.shape[0], frames = out.shape[1], length = frames * kHop;
  const int64_t n = std::min(samples.size(), length);
  check_samples("log_mel", samples.as<float>(), n);
  double cosine[kFft], sine[kFft], window[kFft];
  for (int j = 0; j < kFft; j++) {
    cosine[j] = std::cos(2 * kPi * j / kFft);
    sine[j] = std::sin(2 * kPi * j / kFft);
    window[j] = 0.5 - 0.5 * cosine[j];
  }
  std::vector<double> y(size_t(mels * frames));
  double top = -INFINITY;
  for (int64_t t = 0; t < frames; t++) {
    double x[kFft], power[kBins];
    for (int j = 0; j < kFft; j++) {
      int64_t i = t * kHop + j - kHalf;
      if (i < 0) i = -i;
      if (i >= length) i = 2 * (length - 1) - i;
      x[j] = i < n ? window[j] * load(samples, i) : 0;
    }
    for (int k = 0; k < kBins; k++) {
      double re = 0, im = 0;
      for (int j = 0; j < kFft; j++) {
        re += x[j] * cosine[j * k % kFft];
        im -= x[j] * sine[j * k % kFft];
      }
      power[k] = re * re + im * im;
    }
    for (int64_t m = 0; m < mels; m++) {
      double sum = 0;
      for (int k = 0; k < kBins; k++) sum += load(filters, m * kBins + k) * power[k];
      y[size_t(m * frames + t)] = std::log10(std::max(sum, 1e-10));
      top = std::max(top, y[size_t(m * frames + t)]);
    }
  }
  for (int64_t i = 0; i < mels * frames; i++) store(out, i, (std::max(y[size_t(i)], top - 8) + 4) / 4);
}

void mel_filters(Context&, const MelFilters& q) { dw::mel_filters(int(q.mels), q.filters.as<float>()); }

void resample(Context&, const Resample& q) {
  const View &x = q.samples, &y = q.resampled;
  const int64_t n = x.size(), from = q.from_rate, to = q.to_rate;
  check_samples("resample", x.as<float>(), n);
  const double scale = std::min(1.0, double(to) / double(from));
  for (int64_t j = 0; j < y.size(); j++) {
    const int64_t whole = j * from / to;
    const double part = double(j * from % to) / double(to), reach = kSincHalf / scale;
    double sum = 0, weight = 0;
    for (int64_t i = whole - int64_t(reach) - 1; i <= whole + int64_t(reach) + 1; i++) {
      const double h = sinc_kernel((double(i - whole) - part) * scale);
      weight += h;
      if (i >= 0 && i < n) sum += h * load(x, i);
    }
    store(y, j, from == to ? load(x, j) : sum / weight);
  }
}

}  // namespace reference
}  // namespace dw
