// CUDA's execution model on the processor, so that the kernels of cuda/ can be held against the oracles without a GPU.
// Included before every source (-include). A thread of a block is a fibre; fibres meet where the hardware makes threads
// meet (__syncthreads, shuffles, tensor cores), in an order that DW_EMULATOR_ORDER changes. Blocks run one by one.
// It aborts on what is undefined on a GPU: a warp-wide instruction or a barrier that some threads have left, addresses
// that are not aligned. A stream that captures keeps its launches, with their arguments as they were, for its graph; a
// launch of the graph runs them. Asynchronous copies arrive when they are waited for, and their targets hold NaN until
// then.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

using std::max;
using std::min;

struct EmulatedIndex {
  unsigned x;
};
extern EmulatedIndex threadIdx, blockIdx, blockDim, gridDim;

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

namespace emulator {

void run(int64_t blocks, int threads, const std::function<void()>& kernel);
// What is put on a stream: it runs at once, or, where the stream captures, whenever its graph is launched.
enum class Work { kernel, product, copy };
void put(void* stream, Work what, std::function<void()> work);
inline void launch(void* stream, int64_t blocks, int threads, std::function<void()> kernel) {
  put(stream, Work::kernel, [=] { run(blocks, threads, kernel); });
}
// Whether a call of the runtime shall fail, to try what then happens: DW_EMULATOR_FAIL names it. 'context': it is dead,
// which a product is the first to meet; 'no driver', 'old driver', 'no GPU', 'no cuBLASLt': what a machine may lack.
bool fails(const char* call);
// Whether this thread captures.
bool capturing();
void barrier();
// All lanes of a warp bring an operand; the last one runs `work` on the 32 of them.
void warp(void* mine, void (*work)(void** all));
[[noreturn]] void fail(const char* what);
void copy_async(void* to, const void* from, bool valid);
void commit();
void wait(int pending);

inline void check_aligned(const void* p, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(p) % bytes != 0) fail("an address is not aligned");
}
template <class T>
struct Shuffle {
  T value, got;
  int from;
};
template <class T>
T shuffle(T value, int from) {
  Shuffle<T> mine{value, value, from};
  warp(&mine, [](void** all) {
    for (int i = 0; i < 32; i++) {
      auto* lane = static_cast<Shuffle<T>*>(all[i]);
      lane->got = static_cast<Shuffle<T>*>(all[lane->from])->value;
    }
  });
  return mine.got;
}

}  // namespace emulator

inline void __syncthreads() { emulator::barrier(); }
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulator::shuffle(value, int(threadIdx.x % 32) ^ mask);
}
template <class T>
T __shfl_sync(unsigned, T value, int lane) {
  return emulator::shuffle(value, lane % 32);
}
inline unsigned __ballot_sync(unsigned, bool vote) {
  struct Lane {
    bool vote;
    unsigned all;
  } mine{vote, 0};
  emulator::warp(&mine, [](void** all) {
    unsigned votes = 0;
    for (int i = 0; i < 32; i++) votes |= unsigned(static_cast<Lane*>(all[i])->vote) << i;
    for (int i = 0; i < 32; i++) static_cast<Lane*>(all[i])->all = votes;
  });
  return mine.all;
}
inline int __ffs(int x) { return __builtin_ffs(x); }
inline float __uint_as_float(uint32_t bits) {
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}
inline uint32_t __float_as_uint(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  return bits;
}
inline void sincospif(float x, float* sine, float* cosine) {
  *sine = float(std::sin(M_PI * double(x)));
  *cosine = float(std::cos(M_PI * double(x)));
}
inline int atomicCAS(int* p, int compare, int value) {
  const int old = *p;
  if (old == compare) *p = value;
  return old;
}
inline void __threadfence_system() {}
