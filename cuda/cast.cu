#include "cast.h"
#include "kernels.h"
#include "lanes.cuh"
#include "ops/rows.h"
#include "runtime/launch.cuh"

namespace dw {
namespace cuda {

namespace {

template <int N>
__global__ void convert_kernel(Any x, Any y, int64_t n) {
  DW_GRID_STRIDE(i, n / N) {
    float v[N];
    load(v, x, i * N);
    store(y, i * N, v);
  }
}

// n words of 4 bytes from a 4-byte aligned address: 16 bytes at a time where that is aligned.
template <int N>
__global__ void fill_kernel(uint32_t* __restrict__ x, uint32_t word, int64_t n) {
  DW_GRID_STRIDE(i, n / N) {
    if (N == 4)
      reinterpret_cast<uint4*>(x)[i] = make_uint4(word, word, word, word);
    else
      x[i] = word;
  }
}

__global__ void fill_short_kernel(uint16_t* __restrict__ x, uint16_t value, int64_t n) {
  DW_GRID_STRIDE(i, n) x[i] = value;
}

}  // namespace

void convert(Context& c, const void* from, DType from_type, void* to, DType to_type, int64_t n) {
  if (n == 0) return;
  if (from_type == to_type) {
    cudaMemcpyAsync(to, from, size_t(n * size_of(to_type)), cudaMemcpyDeviceToDevice, c.stream);
    return;
  }
  const Any x{const_cast<void*>(from), from_type == DType::bf16}, y{to, to_type == DType::bf16};
  // What is left over is shorter than a thread's share.
  with_eight(0, {from, to}, [&](auto lanes) {
    constexpr int N = decltype(lanes)::value;
    const int64_t whole = n / N * N;
    if (whole > 0) launch(c, convert_kernel<N>, grid_for(whole / N, c.processors), kThreads, x, y, whole);
    if (whole == n) return;
    const Any x1{static_cast<char*>(x.data) + whole * size_of(from_type), x.bf16};
    const Any y1{static_cast<char*>(y.data) + whole * size_of(to_type), y.bf16};
    launch(c, convert_kernel<1>, 1, 32, x1, y1, n - whole);
  });
}

// y[i] = x[i]                                        x, y [..], f32 or bf16
void cast(Context& c, const Cast& q) {
  const View &x = q.x, &y = q.y;
  convert(c, x.data, x.dtype, y.data, y.dtype, x.size());
}

// x[i] = value                                       x [..], f32, bf16 or i32
void fill(Context& c, const Fill& q) {
  const View& x = q.x;
  const double value = q.value;
  int64_t n = x.size();
  if (n == 0) return;
  const uintptr_t address = reinterpret_cast<uintptr_t>(x.data);
  uint32_t word;
  if (x.dtype == DType::bf16) {
    const uint16_t bits = to_bf16(float(value)).bits;
    if (address % 4 != 0 || n % 2 != 0)
      return launch(c, fill_short_kernel, grid_for(n, c.processors), kThreads, x.as<uint16_t>(), bits, n);
    word = uint32_t(bits) << 16 | bits;
    n /= 2;
  } else if (x.dtype == DType::i32) {
    word = uint32_t(int32_t(value));
  } else {
    const float v = float(value);
    std::memcpy(&word, &v, 4);
  }
  if (n % 4 == 0 && address % 16 == 0)
    launch(c, fill_kernel<4>, grid_for(n / 4, c.processors), kThreads, x.as<uint32_t>(), word, n);
  else
    launch(c, fill_kernel<1>, grid_for(n, c.processors), kThreads, x.as<uint32_t>(), word, n);
}

}  // namespace cuda
}  // namespace dw
