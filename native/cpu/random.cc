// random_uniform, random_normal: [count], the same draws as core/philox.h. 64 blocks are worked side by side (enough
// for the compiler to keep the loop and vectorise it); each gives four words, hence four uniforms or two pairs of
// normals.
#include "ops/random.h"

#include <cmath>

#include "cpu/isa.h"
#include "cpu/simd/math.h"
#include "cpu/simd/philox.h"

namespace dw {
namespace cpu {
namespace DW_ISA {
namespace {

constexpr int kSide = 64;

inline void uniform_side(const uint32_t word[4][kSide], float value[4][kSide]) {
  for (int w = 0; w < 4; w++)
    for (int l = 0; l < kSide; l++) value[w][l] = float(int32_t(word[w][l] >> 8)) * (1.0f / 16777216.0f);
}

// Box-Muller. The angle is reduced to a quarter turn in integers; Cephes' polynomials on [-π/4, π/4].
inline void normal_side(const uint32_t word[4][kSide], float value[4][kSide]) {
  for (int w = 0; w < 4; w += 2)
    for (int l = 0; l < kSide; l++) {
      const float u = float(int32_t(word[w][l] >> 8) + 1) * (1.0f / 16777216.0f);
      const float radius = std::sqrt(-2.0f * log_of_normal(u));
      const int32_t turn = int32_t(word[w + 1][l] >> 8), quarter = (turn + (1 << 21)) >> 22;
      const float a = float(turn - (quarter << 22)) * float(6.283185307179586 / 16777216.0), z = a * a;
      const float s = a + a * z * ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f);
      const float t =
          1.0f - 0.5f * z + z * z * ((2.443315711809948e-5f * z - 1.388731625493765e-3f) * z + 4.166664568298827e-2f);
      const float cosine = quarter & 1 ? s : t, sine = quarter & 1 ? t : s;
      value[w][l] = radius * ((quarter + 1) & 2 ? -cosine : cosine);
      value[w + 1][l] = radius * (quarter & 2 ? -sine : sine);
    }
}

template <class Convert>
void draw(Context& ctx, const Draw& q, const Convert& convert) {
  const int64_t count = q.count;
  float* out = q.values.as<float>();
  constexpr int64_t kGroup = 4 * kSide;
  ctx.pool.split((count + kGroup - 1) / kGroup, 64, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; g++) {
      alignas(64) uint32_t word[4][kSide];
      alignas(64) float value[4][kSide], line[kGroup];
      for (int l = 0; l < kSide; l += kPhiloxBlocks)
        philox_words(uint64_t(g * kSide + l), q.step, q.op, q.seed, word[0] + l, kSide);
      convert(word, value);
      for (int l = 0; l < kSide; l++)
        for (int w = 0; w < 4; w++) line[4 * l + w] = value[w][l];
      const int64_t left = count - g * kGroup;
      std::memcpy(out + g * kGroup, line, size_t(left < kGroup ? left : kGroup) * 4);
    }
  });
}

}  // namespace

void random_normal(Context& ctx, const Draw& q) { draw(ctx, q, normal_side); }
void random_uniform(Context& ctx, const Draw& q) { draw(ctx, q, uniform_side); }

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
