// global_norm and adamw over all tensors of a model in as few launches as their table (a kernel's parameter) allows.
// Blocks take pieces of kPiece elements; a block finds the tensor of its piece by bisection.
#include <cmath>

#include "kernels.h"
#include "lanes.cuh"
#include "ops/optimizer.h"
#include "runtime/launch.cuh"

namespace dw {
namespace cuda {

namespace {

constexpr int64_t kPiece = 1 << 14;
inline int64_t pieces_of(int64_t n) { return (n + kPiece - 1) / kPiece; }
inline bool aligned(const void* p, uintptr_t to) { return reinterpret_cast<uintptr_t>(p) % to == 0; }

// Tensor i has pieces [first[i], first[i + 1]).
template <class T>
__device__ inline int tensor_of(const T& table, int64_t piece) {
  int low = 0, high = table.count - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (table.first[middle] <= piece)
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

struct Gradients {
  static constexpr int kMost = 1300;
  int count;
  const float* data[kMost];
  int64_t size[kMost];
  int64_t first[kMost + 1];
};

constexpr size_t kMostParameters = 32764;  // bytes, from CUDA 12.1 on
static_assert(sizeof(Gradients) + 16 <= kMostParameters);

// The sum of all threads' values, in a fixed order; valid in thread 0.
__device__ inline double block_sum(double x) {
  __shared__ double room[kThreads / 32];
  x = warp_sum(x);
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = x;
  __syncthreads();
  double sum = 0;
  for (int w = 0; w < kThreads / 32; w++) sum += room[w];
  return sum;
}

// Squares are summed in double: no gradient is too large or too small for them.
__global__ void __launch_bounds__(kThreads) squares_kernel(const Gradients table, double* __restrict__ sums) {
  const int64_t piece = blockIdx.x;
  const int i = tensor_of(table, piece);
  const int64_t begin = (piece - table.first[i]) * kPiece;
  const int64_t end = begin + kPiece < table.size[i] ? begin + kPiece : table.size[i];
  const float* g = table.data[i];
  double sum = 0;
  int64_t at = begin;
  if (reinterpret_cast<uintptr_t>(g) % 16 == 0) {
    at = begin + (end - begin) / 4 * 4;
#pragma unroll 4
    for (int64_t k = begin + threadIdx.x * 4; k < at; k += kThreads * 4) {
      float x[4];
      load(x, g, k);
#pragma unroll
      for (int n = 0; n < 4; n++) sum += double(x[n]) * double(x[n]);
    }
  }
  for (at += threadIdx.x; at < end; at += kThreads) sum += double(g[at]) * double(g[at]);
  sum = block_sum(sum);
  if (threadIdx.x == 0) sums[piece] = sum;
}

__global__ void __launch_bounds__(kThreads)
    norm_kernel(const double* __restrict__ sums, int64_t count, double max_norm, double scale, float* __restrict__ norm,
                float* __restrict__ clipped) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) sum += sums[i];
  sum = block_sum(sum);
  if (threadIdx.x != 0) return;
  const double n = scale * sqrt(sum);
  const double clip = max_norm > 0 && max_norm < n + 1e-6 ? max_norm / (n + 1e-6) : 1;
  *norm = float(n);
  *clipped = fabsf(float(n)) < INFINITY ? float(scale * clip) : 0.0f;
}

struct Group {
  float* p;
  const float* g;
  float *m, *v;
  int64_t size;
  float step, root;  // see adamw
  bool wide;         // all of it can be read 16 bytes at a time
};
struct Groups {
  static constexpr int kMost = 500;
  int count;
  float beta1, rest1, beta2, rest2, eps;
  float before, after;
  Group group[kMost];
  int64_t first[kMost + 1];
};

static_assert(sizeof(Groups) + 16 <= kMostParameters);

// p = (p·before - step·m / (sqrt(v)·root + eps))·after
template <int N>
__device__ inline void update(const Groups& t, const Group& a, float scale, int64_t i) {
  float p[N], g[N], m[N], v[N];
  load(p, a.p, i);
  load(g, a.g, i);
  load(m, a.m, i);
  load(v, a.v, i);
#pragma unroll
  for (int n = 0; n < N; n++) {
    const float d = g[n] * scale;
    m[n] = t.beta1 * m[n] + t.rest1 * d;
    v[n] = t.beta2 * v[n] + t.rest2 * d * d;
    p[n] = (p[n] * t.before - a.step * m[n] / (sqrtf(v[n]) * a.root + t.eps)) * t.after;
  }
  store(a.p, i, p);
  store(a.m, i, m);
  store(a.v, i, v);
}

__global__ void __launch_bounds__(kThreads) adamw_kernel(const Groups table, const float* __restrict__ scaling) {
  const float scale = *scaling;
  if (scale == 0) return;
  const int64_t piece = blockIdx.x;
  const int i = tensor_of(table, piece);
  const Group& a = table.group[i];
  const int64_t begin = (piece - table.first[i]) * kPiece, end = begin + kPiece < a.size ? begin + kPiece : a.size;
  const int64_t whole = a.wide ? begin + (end - begin) / 4 * 4 : begin;
  for (int64_t at = begin + threadIdx.x * 4; at < whole; at += kThreads * 4) update<4>(table, a, scale, at);
  for (int64_t at = whole + threadIdx.x; at < end; at += kThreads) update<1>(table, a, scale, at);
}

}  // namespace

// norm = a·sqrt(Σ g²), a the gradient scale;  scale = a·min(1, max_norm / (norm + 1e-6)), 0 when norm is not finite
void global_norm(Context& c, const GlobalNorm& q) {
  int64_t total = 0;
  for (const View& g : q.gradients) total += pieces_of(g.size());
  Workspace::Frame frame(c.workspace);
  double* sums = frame.take<double>(total + 1);
  Gradients table;
  table.count = 0;
  int64_t pieces = 0, done = 0;
  const auto flush = [&] {
    table.first[table.count] = pieces;
    if (pieces > 0) launch(c, squares_kernel, pieces, kThreads, table, sums + done);
    done += pieces;
    table.count = 0;
    pieces = 0;
  };
  for (const View& g : q.gradients) {
    if (g.size() == 0) continue;
    if (table.count == Gradients::kMost) flush();
    table.data[table.count] = g.as<float>();
    table.size[table.count] = g.size();
    table.first[table.count++] = pieces;
    pieces += pieces_of(g.size());
  }
  flush();
  launch(c, norm_kernel, 1, kThreads, static_cast<const double*>(sums), total, q.max_norm, q.gradient_scale,
         q.norm.as<float>(), q.scale.as<float>());
}

// g' = scale·g;  m = β1·m + (1-β1)·g';  v = β2·v + (1-β2)·g'². A scale of 0 changes nothing.
//   mode 0     p = p·(1 - lr·wd) - lr·(m / (1-β1^t)) / (sqrt(v / (1-β2^t)) + eps)
//   mode 1     q = p - lr·sqrt(1-β2^t)/(1-β1^t)·m / (sqrt(v) + eps);  p = q·(1 - lr·wd)
void adamw(Context& c, const AdamW& q) {
  const double lr = q.lr, beta1 = q.beta1, beta2 = q.beta2;
  const float keep = float(1 - lr * q.weight_decay);
  const bool bias_in_eps = q.mode == 0;
  Groups table;
  table.count = 0;
  table.beta1 = float(beta1), table.rest1 = float(1 - beta1);
  table.beta2 = float(beta2), table.rest2 = float(1 - beta2);
  table.eps = float(q.epsilon);
  table.before = bias_in_eps ? keep : 1.0f;
  table.after = bias_in_eps ? 1.0f : keep;
  int64_t pieces = 0;
  const auto flush = [&] {
    table.first[table.count] = pieces;
    if (pieces > 0) launch(c, adamw_kernel, pieces, kThreads, table, q.scale.as<const float>());
    table.count = 0;
    pieces = 0;
  };
  for (const AdamW::Group& a : q.groups) {
    const double t = double(a.step);
    if (t == 0 || a.p.size() == 0) continue;
    if (table.count == Groups::kMost) flush();
    const double c1 = 1 - std::pow(beta1, t), c2 = 1 - std::pow(beta2, t);
    Group& g = table.group[table.count];
    g.p = a.p.as<float>(), g.g = a.gradient.as<float>(), g.m = a.m.as<float>(), g.v = a.v.as<float>();
    g.size = a.p.size();
    g.step = float(bias_in_eps ? lr / c1 : lr * std::sqrt(c2) / c1);
    g.root = bias_in_eps ? float(1 / std::sqrt(c2)) : 1.0f;
    g.wide = aligned(g.p, 16) && aligned(g.g, 16) && aligned(g.m, 16) && aligned(g.v, 16);
    table.first[table.count++] = pieces;
    pieces += pieces_of(g.size);
  }
  flush();
}

}  // namespace cuda
}  // namespace dw
