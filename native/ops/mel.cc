#include "ops/mel.h"

#include <cmath>

#include "core/audio.h"

namespace dw {

void LogMel::declare(Prepare& p) {
  p.tensor(samples, "samples", kF32, {kAny});
  p.tensor(filters, "filters", kF32, {kAny, 201});
  p.integer(frames, "frames", 0, int64_t(1) << 31);
  p.require(frames != 1, "frames", "0 or at least 2 (the ends are mirrored over 200 samples)", "1");
  p.require(filters.shape[0] > 0, "filters", "at least one filter", filters);
  p.output(features, DType::f32, {filters.shape[0], frames});
}

// Of a frame the transform: 5/2·n·log2 n for n real points.
void LogMel::count(Count& c) const {
  c.work.flop = double(features.shape[1]) * 2.5 * kFft * std::log2(kFft);
  c.shape({features.shape[0], features.shape[1]});
}

void MelFilters::declare(Prepare& p) {
  p.integer(mels, "mels", 1, 201);
  p.output(filters, DType::f32, {mels, 201});
}

void Resample::declare(Prepare& p) {
  p.tensor(samples, "samples", kF32, {kAny});
  p.integer(from_rate, "from_rate", kLowestRate, kHighestRate);
  p.integer(to_rate, "to_rate", kLowestRate, kHighestRate);
  // n · to_rate may not fit.
  const int64_t n = samples.shape[0];
  p.output(resampled, DType::f32, {n / from_rate * to_rate + (n % from_rate * to_rate + from_rate - 1) / from_rate});
}

// A product with every sample under the filter, which is as wide as the lower of the two rates makes it.
void Resample::count(Count& c) const {
  const double from = double(from_rate), to = double(to_rate);
  c.work.flop = Count::product(double(resampled.size()), 2 * kSincHalf * std::fmax(1, from / to), 1);
}

}  // namespace dw
