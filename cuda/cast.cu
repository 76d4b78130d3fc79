#include <type_traits>

#include "cast.h"
#include "kernels.h"
#include "launch.cuh"
#include "math.cuh"

namespace dw {
namespace cuda {

namespace {

template <class A, class O>
__global__ void convert_kernel(const A* __restrict__ x, O* __restrict__ y, int64_t n) {
  DW_GRID_STRIDE(i, n) put(y, i, get(x, i));
}

template <class T>
__global__ void fill_kernel(T* x, T value, int64_t n) {
  DW_GRID_STRIDE(i, n) x[i] = value;
}

}  // namespace

void convert(Context& c, const void* from, DType from_type, void* to, DType to_type, int64_t n) {
  if (n == 0) return;
  if (from_type == to_type) {
    cudaMemcpyAsync(to, from, size_t(n * size_of(to_type)), cudaMemcpyDeviceToDevice, c.stream);
    return;
  }
  with_type(from_type, [&](auto* a) {
    with_type(to_type, [&](auto* o) {
      using A = std::remove_pointer_t<decltype(a)>;
      using O = std::remove_pointer_t<decltype(o)>;
      launch(c, convert_kernel<A, O>, grid_for(n, c.processors), kThreads, static_cast<const A*>(from),
             static_cast<O*>(to), n);
    });
  });
}

// y[i] = x[i]                                        x, y [..], f32 or bf16
void cast(Context& c, const Call& call) {
  const View &x = call.in[0], &y = call.out[0];
  convert(c, x.data, x.dtype, y.data, y.dtype, x.size());
}

// x[i] = value                                       x [..], f32, bf16 or i32
void fill(Context& c, const Call& call) {
  const View& x = call.in[0];
  const int64_t n = x.size();
  const double value = call.num[0];
  if (n == 0) return;
  const unsigned grid = grid_for(n, c.processors);
  if (x.dtype == DType::i32)
    launch(c, fill_kernel<int32_t>, grid, kThreads, x.as<int32_t>(), int32_t(value), n);
  else if (x.dtype == DType::f32)
    launch(c, fill_kernel<float>, grid, kThreads, x.as<float>(), float(value), n);
  else
    launch(c, fill_kernel<uint16_t>, grid, kThreads, x.as<uint16_t>(), to_bf16(float(value)).bits, n);
}

}  // namespace cuda
}  // namespace dw
