// log_mel: samples [n], filters [mels, 201] → [mels, frames]; see reference/mel.cc for the formula.
// Frames stand side by side in the lanes of a register, so that the transform is plain arithmetic on registers:
// 400 real points as 200 complex ones z[j] = x[2j] + i·x[2j+1]; 200 = 8 · 25 by the Chinese remainder theorem (no
// twiddles in between), 25 = 5 · 5; then X[k] = E[k] + e^(-2πik/400)·O[k] from the even and odd parts.
#include "ops/mel.h"

#include <cmath>

#include "core/audio.h"
#include "cpu/isa.h"
#include "cpu/simd/math.h"
#include "cpu/simd/vec.h"

namespace dw {
namespace cpu {
namespace DW_ISA {
namespace {

struct Complex {
  Vec re, im;
};
inline Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
inline Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
inline Complex operator*(Complex a, float s) { return {a.re * s, a.im * s}; }
inline Complex minus_i(Complex a) { return {a.im, -a.re}; }

inline void dft4(Complex x0, Complex x1, Complex x2, Complex x3, Complex* y, int stride) {
  const Complex s = x0 + x2, d = x0 - x2, u = x1 + x3, v = minus_i(x1 - x3);
  y[0] = s + u;
  y[stride] = d + v;
  y[2 * stride] = s - u;
  y[3 * stride] = d - v;
}

inline void dft8(const Complex* x, Complex* y, int stride) {
  const float h = 0.70710678118654752f;
  const Complex b1 = x[1] - x[5], b3 = x[3] - x[7];
  dft4(x[0] + x[4], x[1] + x[5], x[2] + x[6], x[3] + x[7], y, 2 * stride);
  dft4(x[0] - x[4], Complex{b1.re + b1.im, b1.im - b1.re} * h, minus_i(x[2] - x[6]),
       Complex{b3.im - b3.re, -(b3.re + b3.im)} * h, y + stride, 2 * stride);
}

inline void dft5(const Complex* x, int stride, Complex* y) {
  const float c1 = 0.30901699437494742f, c2 = -0.80901699437494742f, s1 = 0.95105651629515357f,
              s2 = 0.58778525229247313f;
  const Complex x0 = x[0], t1 = x[stride] + x[4 * stride], t2 = x[2 * stride] + x[3 * stride];
  const Complex t3 = x[stride] - x[4 * stride], t4 = x[2 * stride] - x[3 * stride];
  const Complex m1 = x0 + t1 * c1 + t2 * c2, m2 = x0 + t1 * c2 + t2 * c1;
  const Complex n1 = minus_i(t3 * s1 + t4 * s2), n2 = minus_i(t3 * s2 - t4 * s1);
  y[0] = x0 + t1 + t2;
  y[1] = m1 + n1;
  y[2] = m2 + n2;
  y[3] = m2 - n2;
  y[4] = m1 - n1;
}

// Window and twiddles, and where each non-zero stretch of a filter lies.
struct Plan {
  float window[kFft];
  float w25_re[25], w25_im[25];  // e^(-2πi·bc/25) at 5·b + c
  float w400_re[101], w400_im[101];
  Plan() {
    for (int j = 0; j < kFft; j++) window[j] = float(0.5 - 0.5 * std::cos(2 * kPi * j / kFft));
    for (int j = 0; j < 25; j++) {
      w25_re[j] = float(std::cos(2 * kPi * (j / 5) * (j % 5) / 25));
      w25_im[j] = float(-std::sin(2 * kPi * (j / 5) * (j % 5) / 25));
    }
    for (int k = 0; k <= 100; k++) {
      w400_re[k] = float(std::cos(2 * kPi * k / kFft));
      w400_im[k] = float(-std::sin(2 * kPi * k / kFft));
    }
  }
};

// |X[k]|² of kLanes frames; `signal` is the first sample of the first frame.
void power_spectrum(const Plan& plan, const float* signal, Vec* power) {
  alignas(64) float x[kFft * kLanes];
  for (int l = 0; l < kLanes; l++)
    for (int j = 0; j < kFft; j++) x[j * kLanes + l] = signal[l * kHop + j] * plan.window[j];

  Complex columns[kHalf], z[kHalf];
  for (int n2 = 0, at = 0; n2 < 25; n2++, at = at + 8) {
    Complex points[8];
    for (int n1 = 0, n = at; n1 < 8; n1++, n = n + 25 >= kHalf ? n + 25 - kHalf : n + 25) {
      points[n1].re = load_vec(x + 2 * n * kLanes);
      points[n1].im = load_vec(x + (2 * n + 1) * kLanes);
    }
    dft8(points, columns + n2, 25);
  }
  for (int k1 = 0; k1 < 8; k1++) {
    const Complex* in = columns + 25 * k1;
    Complex t[25];
    for (int b = 0; b < 5; b++) {
      dft5(in + b, 5, t + 5 * b);
      for (int c = 1; b > 0 && c < 5; c++) {
        const Complex v = t[5 * b + c];
        const float re = plan.w25_re[5 * b + c], im = plan.w25_im[5 * b + c];
        t[5 * b + c] = {v.re * re - v.im * im, v.re * im + v.im * re};
      }
    }
    for (int c = 0; c < 5; c++) {
      Complex y[5];
      dft5(t + c, 5, y);
      for (int d = 0; d < 5; d++) z[(25 * k1 + 176 * (c + 5 * d)) % kHalf] = y[d];
    }
  }
  for (int k = 0; k <= 100; k++) {
    const Complex a = z[k], b = z[k == 0 ? 0 : kHalf - k];
    const Vec er = (a.re + b.re) * 0.5f, ei = (a.im - b.im) * 0.5f;
    const Vec odd_re = (a.im + b.im) * 0.5f, odd_im = (b.re - a.re) * 0.5f;
    const float wr = plan.w400_re[k], wi = plan.w400_im[k];
    const Vec tr = odd_re * wr - odd_im * wi, ti = odd_re * wi + odd_im * wr;
    power[k] = (er + tr) * (er + tr) + (ei + ti) * (ei + ti);
    power[kHalf - k] = (er - tr) * (er - tr) + (ei - ti) * (ei - ti);
  }
}

}  // namespace

void log_mel(Context& ctx, const LogMel& q) {
  static const Plan plan;
  const float* samples = q.samples.as<float>();
  const float* filters = q.filters.as<float>();
  float* out = q.features.as<float>();
  const int64_t mels = q.features.shape[0], frames = q.frames, length = frames * kHop;
  if (frames == 0) return;
  int64_t n = q.samples.size() < length ? q.samples.size() : length;
  check_samples("log_mel", samples, n);
  while (n > 0 && samples[n - 1] == 0) n--;
  // From this frame on every window, also of the mirrored end, sees nothing but zeros.
  int64_t active = frames;
  if (n == 0)
    active = 0;
  else if (n <= length - kHalf - 1 && (n + kHalf + kHop - 1) / kHop < frames)
    active = (n + kHalf + kHop - 1) / kHop;
  const int64_t groups = (active + kLanes - 1) / kLanes;

  Workspace::Frame frame(ctx.workspace);
  float* top = frame.take<float>(groups + 1);
  int* first = frame.take<int>(2 * mels);
  for (int64_t m = 0; m < mels; m++) {
    int begin = 0, end = kBins;
    while (begin < end && filters[m * kBins + begin] == 0) begin++;
    while (end > begin && filters[m * kBins + end - 1] == 0) end--;
    first[2 * m] = begin;
    first[2 * m + 1] = end;
  }
  // The signal with its mirrored ends; what lies beyond the last frame is zero.
  const int64_t padded = groups * kLanes * kHop + kFft;
  float* signal = frame.take<float>(padded);
  const int64_t body = n < padded - kHalf ? n : padded - kHalf;
  std::memcpy(signal + kHalf, samples, size_t(body) * 4);
  std::memset(signal + kHalf + body, 0, size_t(padded - kHalf - body) * 4);
  for (int64_t i = 1; i <= kHalf; i++) {
    signal[kHalf - i] = i < n ? samples[i] : 0;
    const int64_t at = kHalf + length - 1 + i, from = length - 1 - i;
    if (at < padded) signal[at] = from < n ? samples[from] : 0;
  }

  ctx.pool.split(groups, 4, [&](int64_t begin, int64_t end) {
    Vec power[kBins];
    for (int64_t g = begin; g < end; g++) {
      power_spectrum(plan, signal + g * kLanes * kHop, power);
      const int64_t at = g * kLanes, count = active - at < kLanes ? active - at : kLanes;
      float best = -10.0f;
      for (int64_t m = 0; m < mels; m++) {
        Vec sum = {};
        for (int k = first[2 * m]; k < first[2 * m + 1]; k++) sum += power[k] * filters[m * kBins + k];
        alignas(64) float y[kLanes];
        store_vec(y, sum);
        for (int l = 0; l < kLanes; l++) y[l] = log_of_normal(y[l] > 1e-10f ? y[l] : 1e-10f) * 0.43429448f;
        for (int l = 0; l < count; l++) best = y[l] > best ? y[l] : best;
        if (count == kLanes)
          std::memcpy(out + m * frames + at, y, sizeof y);
        else
          for (int64_t l = 0; l < count; l++) out[m * frames + at + l] = y[l];
      }
      top[g] = best;
    }
  });
  float best = -10.0f;
  for (int64_t g = 0; g < groups; g++) best = top[g] > best ? top[g] : best;
  const float floor = best - 8.0f, silence = ((floor > -10.0f ? floor : -10.0f) + 4.0f) * 0.25f;
  ctx.pool.split(mels, 16, [&](int64_t begin, int64_t end) {
    for (int64_t m = begin; m < end; m++) {
      float* row = out + m * frames;
      for (int64_t t = 0; t < active; t++) row[t] = ((row[t] > floor ? row[t] : floor) + 4.0f) * 0.25f;
      for (int64_t t = active; t < frames; t++) row[t] = silence;
    }
  });
}

void mel_filters(Context&, const MelFilters& q) { dw::mel_filters(int(q.mels), q.filters.as<float>()); }

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
