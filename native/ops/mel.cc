#include "core/audio.h"
#include "core/ops.h"

namespace dw {
namespace ops {

// samples f32 [n] at 16 kHz, filters f32 [mels, 201]; numbers: frames. → features f32 [mels, frames].
// The signal is padded with zeros, or cut, to frames · 160 samples.
void log_mel(Prepare& p) {
  p.tensor("samples", kF32, {kAny});
  const View& filters = p.tensor("filters", kF32, {kAny, 201});
  const int64_t frames = p.integer("frames", 0, int64_t(1) << 31);
  p.require(frames != 1, "frames", "0 or at least 2 (the ends are mirrored over 200 samples)", "1");
  p.require(filters.shape[0] > 0, "filters", "at least one filter", filters.describe());
  p.output(DType::f32, {filters.shape[0], frames});
  p.finish();
}

// numbers: mels. → filters f32 [mels, 201].
void mel_filters(Prepare& p) {
  p.output(DType::f32, {p.integer("mels", 1, 201), 201});
  p.finish();
}

// samples f32 [n]; numbers: from_rate, to_rate in Hz. → f32 [ceil(n · to / from)].
void resample(Prepare& p) {
  const int64_t n = p.tensor("samples", kF32, {kAny}).shape[0];
  const int64_t from = p.integer("from_rate", kLowestRate, kHighestRate);
  const int64_t to = p.integer("to_rate", kLowestRate, kHighestRate);
  // n · to may not fit.
  p.output(DType::f32, {n / from * to + (n % from * to + from - 1) / from});
  p.finish();
}

}  // namespace ops
}  // namespace dw
