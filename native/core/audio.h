// What the audio kernels and their oracles share: the definitions, not the arithmetic.
#pragma once
#include <cstdint>

namespace dw {

// Whisper's spectrogram: 16 kHz, a periodic Hann window of 400 samples every 160.
constexpr int kFft = 400, kHop = 160, kHalf = kFft / 2, kBins = kFft / 2 + 1;
constexpr double kPi = 3.14159265358979323846;

// Samples are nominally within ±1. Beyond this bound their power leaves the range of fp32.
constexpr float kLargestSample = 1e15f;
void check_samples(const char* op, const float* x, int64_t n);  // throws ERR_AUDIO_SAMPLES

// The triangular filters on Slaney's mel scale (linear to 1 kHz, logarithmic above) from 0 to 8000 Hz, each of unit
// area per Hz: [mels, 201], as librosa.filters.mel(sr=16000, n_fft=400, n_mels=mels).
void mel_filters(int mels, float* out);

// Sample rates that can be resampled, in Hz.
constexpr int64_t kLowestRate = 1000, kHighestRate = 768000;

// The resampler's prototype: a sinc with its cut-off at 0.95 of the lower Nyquist frequency under a Kaiser window over
// 64 samples of the lower rate to each side (stop band from Nyquist on, below -95 dB). t in samples of the lower rate.
constexpr int kSincHalf = 64;
constexpr double kSincCutoff = 0.95, kSincBeta = 10.06;
double sinc_kernel(double t);

// The same tabulated: entry i is sinc_kernel((i - 1) / kSincSteps), two entries beyond the end. Cubic interpolation in
// it is exact to 1e-8.
constexpr int kSincSteps = 128;
const double* sinc_table();

}  // namespace dw
