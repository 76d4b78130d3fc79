// The width-3 convolutions as rows for a product: unfold and its adjoint.
#include "kernels.h"
#include "lanes.cuh"
#include "ops/linear.h"
#include "runtime/launch.cuh"

namespace dw {
namespace cuda {

namespace {

// A thread makes N neighbours of y. x [batch, length, channels] or, channels first, [batch, channels, length].
template <int N>
__global__ void unfold_kernel(Any x, Any y, int64_t n, int64_t rows, int64_t length, int64_t channels, int stride,
                              bool first) {
  const int64_t width = 3 * channels;
  DW_GRID_STRIDE(k, n / N) {
    const int64_t i = k * N, row = i / width, b = row / rows, s0 = row % rows * stride - 1;
    const int column = int(i % width);
    float v[N];
#pragma unroll
    for (int e = 0; e < N; e++) {
      const int c = (column + e) / 3;
      const int64_t s = s0 + (column + e) % 3;
      float one[1] = {0};
      if (s >= 0 && s < length) load(one, x, first ? (b * channels + c) * length + s : (b * length + s) * channels + c);
      v[e] = one[0];
    }
    store(y, i, v);
  }
}

__global__ void fold_kernel(Any dy, float* __restrict__ dx, int64_t n, int64_t rows, int64_t length, int64_t channels,
                            int stride) {
  DW_GRID_STRIDE(i, n) {
    const int64_t c = i % channels, s = i / channels % length, b = i / channels / length;
    float sum = 0;
#pragma unroll
    for (int j = 0; j < 3; j++) {
      const int64_t t = s + 1 - j;
      if (t < 0 || t % stride != 0 || t / stride >= rows) continue;
      float v[1];
      load(v, dy, ((b * rows + t / stride) * channels + c) * 3 + j);
      sum += v[0];
    }
    dx[i] = sum;
  }
}

}  // namespace

// y[b, t, 3·c + j] = x[b, stride·t + j - 1, c], zero outside      x [B, T, C], or [B, C, T] when channels come first
void unfold(Context& c, const Unfold& q) {
  const View &x = q.x, &y = q.y;
  const int64_t n = y.size();
  if (n == 0) return;
  with_eight(y.cols(), {y.data}, [&](auto lanes) {
    constexpr int N = decltype(lanes)::value;
    launch(c, unfold_kernel<N>, grid_for(n / N, c.processors), kThreads, any_of(x), any_of(y), n, y.shape[1],
           q.length(), q.channels(), int(q.stride), q.channels_first);
  });
}

// dx[b, s, c] = Σ_j dy[b, (s + 1 - j) / stride, 3·c + j], over the j for which that is a row      dx f32 [B, T, C]
void fold(Context& c, const Fold& q) {
  const View &dy = q.rows, &dx = q.dx;
  const int64_t n = dx.size();
  if (n == 0) return;
  launch(c, fold_kernel, grid_for(n, c.processors), kThreads, any_of(dy), dx.as<float>(), n, dy.shape[1], dx.shape[1],
         dx.shape[2], int(q.stride));
}

}  // namespace cuda
}  // namespace dw
