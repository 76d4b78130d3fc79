// Inference of the gated expert FFN: G ≥ 0 sends a row to its language's FFN, else to the shared one, and the other is
// never computed. For a row x: y = W2·gelu(W1·x + b1) + b2 [+ residual] with the weights that its gate chose. The gate
// is in full f32 whatever the products' type: near 0 it decides. Rows in bf16 meet its matrix as a sum of three in
// bf16, on tensor cores, and the products are exact. Which rows went where stays on the device (grouped.cuh).
#include "cast.h"
#include "grouped.cuh"
#include "kernels.h"

namespace dw {
namespace cuda {

namespace {

// parts [terms, n]: bf16 whose sum is w; each is what the ones before have left over, rounded. Three hold all bits of
// f32.
__global__ void split_kernel(const float* __restrict__ w, bfloat* __restrict__ parts, int64_t n, int terms) {
  DW_GRID_STRIDE(i, n) {
    float rest = w[i];
    for (int t = 0; t < terms; t++) {
      put(parts, t * n + i, rest);
      const float part = get(parts, t * n + i);
      rest = fabsf(part) < INFINITY ? rest - part : 0;
    }
  }
}

// g[r] = 1[w·relu(b + Σ_t hidden[r, t]) ≥ 0], hidden [m, terms, width]; a warp for each row.
__global__ void decide_kernel(const float* __restrict__ hidden, int terms, const float* __restrict__ b,
                              const float* __restrict__ w, float* __restrict__ g, int64_t m, int64_t width) {
  const int64_t r = int64_t(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (r >= m) return;
  float sum = 0;
  for (int64_t i = threadIdx.x % 32; i < width; i += 32) {
    float h = b[i];
    for (int t = terms; t-- > 0;) h += hidden[(r * terms + t) * width + i];
    sum = fmaf(h > 0 || h != h ? h : 0.0f, w[i], sum);
  }
  for (int i = 16; i > 0; i /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, i);
  if (threadIdx.x % 32 == 0) g[r] = sum >= 0 ? 1.0f : 0.0f;
}

// ones[r] = rows before r whose gate is 1; order lists the rows whose gate is 0, then the others. One block.
constexpr int kRouters = 1024;
__global__ void __launch_bounds__(kRouters)
    route_kernel(const float* __restrict__ g, int rows, int* __restrict__ order, int* __restrict__ ones) {
  __shared__ int counts[2][kRouters];
  const int tid = int(threadIdx.x), each = (rows + kRouters - 1) / kRouters;
  const int begin = min(rows, tid * each), end = min(rows, begin + each);
  int mine = 0;
  for (int r = begin; r < end; r++) mine += g[r] != 0;
  counts[0][tid] = mine;
  int side = 0;
  for (int i = 1; i < kRouters; i *= 2, side ^= 1) {
    __syncthreads();
    counts[side ^ 1][tid] = counts[side][tid] + (tid >= i ? counts[side][tid - i] : 0);
  }
  __syncthreads();
  const int zeros = rows - counts[side][kRouters - 1];
  int before = counts[side][tid] - mine;
  for (int r = begin; r < end; r++) {
    ones[r] = before;
    const bool one = g[r] != 0;
    order[one ? zeros + before : r - before] = r;
    before += one;
  }
  if (tid == 0) ones[rows] = rows - zeros;
}

void gates(Context& c, const GatedFfnHard& f, const Expert& expert, float* g) {
  Workspace::Frame frame(c.workspace);
  const int64_t first = expert.begin, m = expert.rows();
  const View& w_in = expert.gate_in;
  const float* bias = as_floats(c, frame, expert.gate_in_bias);
  const float* w_out = as_floats(c, frame, expert.gate_out);
  const Rows x = rows_of(f.x, first);
  const bool few = m <= kFewRows, split = !few && x.type == DType::bf16 && w_in.dtype == DType::f32;
  const int terms = split ? 3 : 1;
  const Rows hidden = scratch(frame, DType::f32, m, terms * f.gate);
  if (few && f.gate > 0) {
    FewLinear in{{x.data, x.type == DType::bf16}, any_of(w_in)};
    in.y = {hidden.data, false};
    in.rows = m, in.n = f.gate, in.k = f.width;
    linear_few(c, in);
  } else if (f.gate > 0) {
    View w = w_in;
    if (split) {
      const int64_t n = w.size();
      w.data = frame.take<bfloat>(terms * n);
      w.dtype = DType::bf16;
      w.shape[0] *= terms;
      launch(c, split_kernel, grid_for(n, c.processors), kThreads, w_in.as<float>(), w.as<bfloat>(), n, terms);
    }
    gemm(c, times_transposed(w, m, x, hidden, w.dtype == x.type ? w.dtype : DType::f32));
  }
  launch(c, decide_kernel, (m + kThreads / 32 - 1) / (kThreads / 32), kThreads, static_cast<const float*>(hidden.data),
         terms, bias, w_out, g + first, m, f.gate);
}

// A tensor in the products' type.
const void* as_type(Context& c, Workspace::Frame& frame, const View& v, DType type) {
  if (v.dtype == type) return v.data;
  void* copy = frame.take<char>(v.size() * size_of(type));
  convert(c, v.data, v.dtype, copy, type, v.size());
  return copy;
}

// One of the two products of all groups, T: their type, Y: the output's.
template <bool kUp, class T, class Y>
void product(Context& c, Grouped& z) {
  const auto at = [](const void* p, int bytes) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; };
  bool aligned = at(z.a, 16);
  z.pairs = z.n % 2 == 0 && at(z.c, 8) && at(z.residual, 8);
  for (int i = 0; i < z.groups; i++) {
    aligned = aligned && at(z.group[i].weight, 16);
    z.pairs = z.pairs && at(z.group[i].bias, 8);
  }
  if (z.rows <= kFewRows) {
    constexpr int kVector = 16 / int(sizeof(T));
    launch(c, aligned && z.k % kVector == 0 ? grouped_few_kernel<kUp, kVector, T, Y> : grouped_few_kernel<kUp, 1, T, Y>,
           (z.n + kThreads / 32 - 1) / (kThreads / 32), kThreads, z);
    return;
  }
  const auto blocks = [&](int m, int n) { return z.most_tiles(m) * ((z.n + n - 1) / n); };
  if (std::is_same<T, bfloat>::value && aligned && z.k % 8 == 0) {
    if (blocks(128, 128) >= c.processors)
      launch(c, grouped_kernel<kUp, Y, 128, 128>, blocks(128, 128), kThreads, z);
    else
      launch(c, grouped_kernel<kUp, Y, 64, 64>, blocks(64, 64), kThreads, z);
    return;
  }
  launch(c, grouped_plain_kernel<kUp, T, Y>, blocks(64, 64), kThreads, z);
}

}  // namespace

void gated_ffn_hard(Context& c, const GatedFfnHard& f) {
  if (f.rows == 0) return;
  const DType compute = f.compute;
  const View &x = f.x, &residual = f.residual, &y = f.y;
  float* g = f.g.as<float>();
  if (f.covered < f.rows) cudaMemsetAsync(g, 0, size_t(f.rows) * 4, c.stream);
  for (const Expert& expert : f.experts)
    if (expert.rows() > 0) gates(c, f, expert, g);
  if (f.width == 0) return;

  Workspace::Frame frame(c.workspace);
  int *order = nullptr, *ones = nullptr;
  if (f.rows > kFewRows) {
    order = frame.take<int>(f.rows);
    ones = frame.take<int>(f.rows + 1);
    launch(c, route_kernel, 1, kRouters, g, int(f.rows), order, ones);
  }
  const void* in = as_type(c, frame, x, compute);
  void* act = frame.take<char>(f.rows * f.inner * size_of(compute));
  // Groups that have rows: the shared FFN first, then every language's; kGroups of them at a time.
  const int64_t languages = int64_t(f.experts.size());
  for (int64_t l = -1; l < languages;) {
    Workspace::Frame inner(c.workspace);
    Grouped up = {}, down;
    up.gate = g, up.order = order, up.ones = ones, up.rows = int(f.rows);
    down = up;
    for (; l < languages && up.groups < kGroups; l++) {
      const Expert* expert = l < 0 ? nullptr : &f.experts[size_t(l)];
      if (expert && expert->rows() == 0) continue;
      const Ffn& w = expert ? expert->ffn : f.shared;
      const int begin = expert ? int(expert->begin) : -1, end = expert ? int(expert->end) : -1;
      up.group[up.groups++] = {as_type(c, inner, w.fc1, compute), as_floats(c, inner, w.fc1_bias), begin, end};
      down.group[down.groups++] = {as_type(c, inner, w.fc2, compute), as_floats(c, inner, w.fc2_bias), begin, end};
    }
    if (up.groups == 0) break;
    up.n = down.k = int(f.inner), up.k = down.n = int(f.width);
    up.a = in, up.c = act;
    down.a = act, down.c = y.data;
    down.residual = residual.data, down.residual_bf16 = residual.dtype == DType::bf16;
    with_type(compute, [&](auto* tt) {
      using T = std::remove_pointer_t<decltype(tt)>;
      if (up.n > 0) product<true, T, T>(c, up);
      with_type(y.dtype, [&](auto* ty) { product<false, T, std::remove_pointer_t<decltype(ty)>>(c, down); });
    });
  }
}

}  // namespace cuda
}  // namespace dw
