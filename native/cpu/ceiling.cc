// The loops behind binding/ceiling.h: as much arithmetic, or reading, as the instruction set can do, and nothing else.
#include "cpu/isa.h"
#include "cpu/simd/vec.h"

namespace dw {
namespace cpu {
namespace DW_ISA {

namespace {

constexpr int kBytes = 4 * kLanes;
// Sums that do not wait for each other: more than latency × width of any processor, and no more than its registers.
constexpr int kChains = kBytes == 64 ? 24 : 12;
constexpr int kSteps = 4096;

volatile float sink;

// The compiler must not see that a factor never changes, nor that all sums are equal: it would compute one of them.
template <class T>
inline void hide(T& value) {
#if defined(__AVX512F__)
  __asm__ volatile("" : "+v"(value));
#elif defined(__x86_64__)
  __asm__ volatile("" : "+x"(value));
#elif defined(__aarch64__)
  __asm__ volatile("" : "+w"(value));
#else
  __asm__ volatile("" : "+m"(value));
#endif
}

double f32_loop() {
  Vec sums[kChains] = {}, a, b;
  for (int i = 0; i < kLanes; i++) a[i] = 0.5f, b[i] = 1.0f;
  for (Vec& sum : sums) hide(sum);
  for (int s = 0; s < kSteps; s++) {
    hide(a);
    hide(b);
#pragma GCC unroll 24
    for (int c = 0; c < kChains; c++) sums[c] = sums[c] * a + b;
  }
  for (int c = 1; c < kChains; c++) sums[0] += sums[c];
  sink = sums[0][0];
  return 2.0 * kLanes * kChains * kSteps;
}

#if defined(__AMX_BF16__)

void bf16_prepare() {
  alignas(64) unsigned char config[64] = {1};
  for (int i = 0; i < 8; i++) config[16 + 2 * i] = 64, config[48 + i] = 16;
  // GCC 12 takes the intrinsic to read 8 bytes and would leave out the rest.
  __asm__ volatile("" : : "r"(config) : "memory");
  _tile_loadconfig(config);
  alignas(64) static const char zeros[1024] = {};
  _tile_loadd(4, zeros, 64);
  _tile_loadd(5, zeros, 64);
  _tile_loadd(6, zeros, 64);
  _tile_loadd(7, zeros, 64);
}
double bf16_loop() {
  for (int s = 0; s < kSteps; s++) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  return 4.0 * 2 * 16 * 16 * 32 * kSteps;
}

#elif defined(__AVX512BF16__)

void bf16_prepare() {}
double bf16_loop() {
  __m512 sums[kChains];
  for (__m512& sum : sums) hide(sum = _mm512_setzero_ps());
  __m512i a = _mm512_set1_epi32(0x3F803F80), b = a;
  for (int s = 0; s < kSteps; s++) {
    hide(a);
    hide(b);
#pragma GCC unroll 24
    for (int c = 0; c < kChains; c++) sums[c] = _mm512_dpbf16_ps(sums[c], (__m512bh)a, (__m512bh)b);
  }
  for (int c = 1; c < kChains; c++) sums[0] = _mm512_add_ps(sums[0], sums[c]);
  sink = _mm512_cvtss_f32(sums[0]);
  return 4.0 * kLanes * kChains * kSteps;
}

#else

void bf16_prepare() {}
double bf16_loop() { return f32_loop(); }

#endif

void read_loop(const char* from, int64_t bytes) {
  Vec s[8] = {};
  for (int64_t i = 0; i < bytes; i += 8 * kBytes)
#pragma GCC unroll 8
    for (int c = 0; c < 8; c++) s[c] += *reinterpret_cast<const Vec*>(from + i + c * kBytes);
  for (int c = 1; c < 8; c++) s[0] += s[c];
  sink = s[0][0];
}

}  // namespace

const CeilingLoops kCeilingLoops = {f32_loop, bf16_prepare, bf16_loop, read_loop};

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
