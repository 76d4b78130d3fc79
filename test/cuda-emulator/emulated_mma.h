// The instructions of cuda/mma.cuh, as the PTX manual defines them.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

namespace dw {
namespace cuda {

inline float emulated_half(uint32_t word, int half) { return __uint_as_float(half ? word & 0xffff0000u : word << 16); }

inline void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  struct Lane {
    float* c;
    const uint32_t* a;
    uint32_t b[2];
  } mine{c, a, {b0, b1}};
  emulator::warp(&mine, [](void** all) {
    float x[16][16], y[16][8];
    for (int l = 0; l < 32; l++) {
      const Lane& lane = *static_cast<Lane*>(all[l]);
      const int g = l / 4, t = l % 4;
      for (int i = 0; i < 2; i++) {
        x[g][2 * t + i] = emulated_half(lane.a[0], i);
        x[g + 8][2 * t + i] = emulated_half(lane.a[1], i);
        x[g][2 * t + 8 + i] = emulated_half(lane.a[2], i);
        x[g + 8][2 * t + 8 + i] = emulated_half(lane.a[3], i);
        y[2 * t + i][g] = emulated_half(lane.b[0], i);
        y[2 * t + 8 + i][g] = emulated_half(lane.b[1], i);
      }
    }
    for (int l = 0; l < 32; l++)
      for (int i = 0; i < 4; i++) {
        const int row = l / 4 + i / 2 * 8, column = l % 4 * 2 + i % 2;
        float sum = 0;
        for (int k = 0; k < 16; k++) sum += x[row][k] * y[k][column];
        static_cast<Lane*>(all[l])->c[i] += sum;
      }
  });
}

template <bool kTransposed>
void emulated_ldmatrix(uint32_t (&r)[4], const void* shared) {
  struct Lane {
    uint32_t* r;
    const uint16_t* row;
  } mine{r, static_cast<const uint16_t*>(shared)};
  emulator::check_aligned(shared, 16);
  emulator::warp(&mine, [](void** all) {
    for (int l = 0; l < 32; l++)
      for (int matrix = 0; matrix < 4; matrix++) {
        const int g = l / 4, t = l % 4;
        uint32_t word = 0;
        for (int i = 0; i < 2; i++) {
          const int row = kTransposed ? 2 * t + i : g, column = kTransposed ? g : 2 * t + i;
          word |= uint32_t(static_cast<Lane*>(all[matrix * 8 + row])->row[column]) << (16 * i);
        }
        static_cast<Lane*>(all[l])->r[matrix] = word;
      }
  });
}
inline void ldmatrix_x4(uint32_t (&r)[4], const void* shared) { emulated_ldmatrix<false>(r, shared); }
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* shared) { emulated_ldmatrix<true>(r, shared); }

inline void cp_async_16(void* shared, const void* global, bool valid) {
  emulator::check_aligned(shared, 16);
  emulator::check_aligned(global, 16);
  emulator::copy_async(shared, global, valid);
}
inline void cp_async_commit() { emulator::commit(); }
template <int kPending>
void cp_async_wait() {
  emulator::wait(kPending);
}

inline float exp2_fast(float x) {
  const float y = std::exp2(x);
  return y < 1.17549435e-38f ? 0.0f : y;
}

}  // namespace cuda
}  // namespace dw
