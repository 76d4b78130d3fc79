// The front of the model; the formulas stand in reference/mel.cc.
#pragma once
#include "core/prepare.h"
#include "core/work.h"

namespace dw {

// samples f32 [n] at 16 kHz, filters f32 [mels, 201] → features f32 [mels, frames]
// The signal is padded with zeros, or cut, to frames · 160 samples.
struct LogMel {
  View samples, filters;
  int64_t frames = 0;
  View features;

  void declare(Prepare& p);
  void count(Count& c) const;
};

// → filters f32 [mels, 201]
struct MelFilters {
  int64_t mels = 1;
  View filters;

  void declare(Prepare& p);
};

// samples f32 [n] at from_rate Hz → resampled f32 [ceil(n · to_rate / from_rate)]
struct Resample {
  View samples;
  int64_t from_rate = 1, to_rate = 1;
  View resampled;

  void declare(Prepare& p);
  void count(Count& c) const;
};

}  // namespace dw
