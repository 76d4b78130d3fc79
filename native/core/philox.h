// Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): randomness as a pure
// function. Element i of a draw is word i mod 4 of philox(counter = (i / 4 low, i / 4 high, step, op), key = seed).
#pragma once
#include <cmath>
#include <cstdint>

// Kernels of the CUDA plugin draw by the same functions.
#ifdef __CUDACC__
#define DW_ANYWHERE __host__ __device__
#else
#define DW_ANYWHERE
#endif

namespace dw {

struct Philox4 {
  uint32_t v[4];
};

DW_ANYWHERE inline Philox4 philox(uint64_t block, uint32_t step, uint32_t op, uint64_t seed) {
  uint32_t c0 = uint32_t(block), c1 = uint32_t(block >> 32), c2 = step, c3 = op;
  uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
  for (int round = 0; round < 10; round++) {
    const uint64_t p0 = uint64_t(0xD2511F53u) * c0, p1 = uint64_t(0xCD9E8D57u) * c2;
    const uint32_t n0 = uint32_t(p1 >> 32) ^ c1 ^ k0, n2 = uint32_t(p0 >> 32) ^ c3 ^ k1;
    c1 = uint32_t(p1);
    c3 = uint32_t(p0);
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// [0, 1) with 24 bits.
DW_ANYWHERE inline float uniform_of(uint32_t word) { return float(word >> 8) * (1.0f / 16777216.0f); }

DW_ANYWHERE inline float uniform_at(uint64_t i, uint32_t step, uint32_t op, uint64_t seed) {
  return uniform_of(philox(i / 4, step, op, seed).v[i % 4]);
}

// Box-Muller on words (2j, 2j+1) of the block: element 2j takes the cosine, 2j+1 the sine.
DW_ANYWHERE inline float normal_at(uint64_t i, uint32_t step, uint32_t op, uint64_t seed) {
  const Philox4 r = philox(i / 4, step, op, seed);
  const int pair = int(i % 4) / 2 * 2;
  const double u = (double(r.v[pair] >> 8) + 1.0) * (1.0 / 16777216.0);  // (0, 1]
  const double angle = 6.283185307179586 * double(r.v[pair + 1] >> 8) * (1.0 / 16777216.0);
  return float(std::sqrt(-2.0 * std::log(u)) * (i % 2 ? std::sin(angle) : std::cos(angle)));
}

// A dropout keep mask: element i is kept with probability 1 - p and then scaled by 1 / (1 - p).
DW_ANYWHERE inline bool kept_at(uint64_t i, float p, uint32_t step, uint32_t op, uint64_t seed) {
  return uniform_at(i, step, op, seed) >= p;
}

}  // namespace dw
