// The ladders of the hot kernels: each rung is timed on the device, and its result held against the first rung's. Build
// it with `npm run build:cuda -- --ladder`, run `build-cuda/ladder [device]`; it prints a tab-separated table.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include "../attention.h"
#include "../gemm.h"
#include "../grouped.cuh"
#include "../products.cuh"
#include "../runtime/device.h"

namespace dw {
namespace cuda {

namespace {

// ---- the first rung of attention: as it is written, scores in memory ----

// s[b, h, i, j] = scale·q[i]·k[j], a thread each
__global__ void naive_scores(AttentionShape z, int64_t count, const bfloat* q, const bfloat* k, float* s) {
  DW_GRID_STRIDE(n, count) {
    const int64_t j = n % z.keys, i = n / z.keys % z.queries, pair = n / z.keys / z.queries;
    const int64_t item = pair / z.heads, column = pair % z.heads * z.width;
    float sum = 0;
    for (int c = 0; c < z.width; c++)
      sum += get(q, (item * z.queries + i) * z.row + column + c) * get(k, (item * z.keys + j) * z.row + column + c);
    s[n] = sum * z.scale;
  }
}
// Rows of s become weights, a thread each.
__global__ void naive_softmax(AttentionShape z, int64_t count, float* s, float* lse) {
  DW_GRID_STRIDE(n, count) {
    float* row = s + n * z.keys;
    float top = row[0], sum = 0;
    for (int j = 1; j < z.keys; j++) top = fmaxf(top, row[j]);
    for (int j = 0; j < z.keys; j++) sum += expf(row[j] - top);
    for (int j = 0; j < z.keys; j++) row[j] = expf(row[j] - top) / sum;
    lse[n] = top + logf(sum);
  }
}
// o = s·v, a thread for each element
__global__ void naive_values(AttentionShape z, int64_t count, const float* s, const bfloat* v, bfloat* o) {
  DW_GRID_STRIDE(n, count) {
    const int64_t c = n % z.width, i = n / z.width % z.queries, pair = n / z.width / z.queries;
    const int64_t item = pair / z.heads, column = pair % z.heads * z.width + c;
    float sum = 0;
    for (int j = 0; j < z.keys; j++)
      sum += s[(pair * z.queries + i) * z.keys + j] * get(v, (item * z.keys + j) * z.row + column);
    put(o, (item * z.queries + i) * z.row + column, sum);
  }
}

// ---- the table ----

template <class T>
__global__ void random_kernel(T* x, int64_t n, float scale, uint32_t op) {
  DW_GRID_STRIDE(i, n) put(x, i, scale * normal_at(uint64_t(i), 0, op, 1));
}
__global__ void route_kernel(int* order, int* ones, int rows) {
  DW_GRID_STRIDE(i, rows + 1) {
    const int half = rows / 2;  // every second row has gate 1
    ones[i] = int(i) / 2;
    if (i < rows) order[i % 2 ? rows - half + int(i) / 2 : int(i) / 2] = int(i);
  }
}

struct Ladder {
  Context& c;
  Device& device;
  Workspace::Frame frame{c.workspace};
  uint32_t draws = 0;

  View tensor(DType type, std::initializer_list<int64_t> shape, float scale = 1) {
    View v;
    v.dtype = type, v.rank = int(shape.size()), v.present = true;
    std::copy(shape.begin(), shape.end(), v.shape);
    v.data = frame.take<char>(v.bytes());
    with_type(type, [&](auto* t) {
      using T = std::remove_pointer_t<decltype(t)>;
      launch(c, random_kernel<T>, grid_for(v.size(), c.processors), kThreads, v.as<T>(), v.size(), scale, draws++);
    });
    return v;
  }

  std::vector<double> read(const View& v) {
    std::vector<char> bytes(static_cast<size_t>(v.bytes()));
    device.check(cudaMemcpyAsync(bytes.data(), v.data, bytes.size(), cudaMemcpyDeviceToHost, c.stream), "reading");
    device.check(cudaStreamSynchronize(c.stream), "reading");
    View here = v;
    here.data = bytes.data();
    std::vector<double> x(size_t(v.size()));
    for (int64_t i = 0; i < v.size(); i++) x[size_t(i)] = load(here, i);
    return x;
  }

  struct Rung {
    const char* name;
    std::function<void()> run;
  };
  // Median of ten runs; the difference is ‖result - first rung's‖ / ‖first rung's‖.
  void climb(const char* kernel, double flop, const View& result, const std::vector<Rung>& rungs) {
    std::vector<double> first;
    double before = 0;
    for (const Rung& rung : rungs) {
      cudaEvent_t begin, end;
      device.check(cudaEventCreate(&begin), "timing");
      device.check(cudaEventCreate(&end), "timing");
      std::vector<float> times;
      for (int i = 0; i < 12; i++) {
        float ms = 0;
        device.check(cudaEventRecord(begin, c.stream), "timing");
        rung.run();
        device.check(cudaEventRecord(end, c.stream), "timing");
        device.check(cudaEventSynchronize(end), rung.name);
        device.check(cudaEventElapsedTime(&ms, begin, end), "timing");
        if (i >= 2) times.push_back(ms);
      }
      cudaEventDestroy(begin);
      cudaEventDestroy(end);
      std::sort(times.begin(), times.end());
      const double ms = times[times.size() / 2];
      const std::vector<double> x = read(result);
      if (first.empty()) first = x;
      double error = 0, size = 0;
      for (size_t i = 0; i < x.size(); i++) {
        error += (x[i] - first[i]) * (x[i] - first[i]);
        size += first[i] * first[i];
      }
      std::printf("%s\t%s\t%.4f\t%.1f\t%.2f\t%.1e\n", kernel, rung.name, ms, flop / ms / 1e9,
                  before > 0 ? before / ms : 1.0, std::sqrt(error / size));
      std::fflush(stdout);
      before = ms;
    }
  }
};

// The encoder of Whisper-small, eight windows.
void attention(Context& c, Device& device) {
  Ladder l{c, device};
  AttentionShape z = {8, 1500, 1500, 12, 64, 1500, 0, nullptr, false, 0.125f, 768};
  const auto make = [&] { return l.tensor(DType::bf16, {z.batch, z.queries, z.row}); };
  const View q = make(), k = make(), v = make(), o = make(), dout = make(), dq = make(), dk = make(), dv = make();
  const int64_t rows = z.pairs() * z.queries;
  const View lse = l.tensor(DType::f32, {rows}), delta = l.tensor(DType::f32, {rows}, 0);
  const View s = l.tensor(DType::f32, {rows, z.keys});
  const double flop = 4.0 * double(rows) * z.keys * z.width;
  l.climb("attention", flop, o,
          {{"scores in memory",
            [&] {
              const auto grid = [&](int64_t n) { return grid_for(n, c.processors); };
              launch(c, naive_scores, grid(rows * z.keys), kThreads, z, rows * z.keys, q.as<bfloat>(), k.as<bfloat>(),
                     s.as<float>());
              launch(c, naive_softmax, grid(rows), kThreads, z, rows, s.as<float>(), lse.as<float>());
              launch(c, naive_values, grid(rows * z.width), kThreads, z, rows * z.width, s.as<float>(), v.as<bfloat>(),
                     o.as<bfloat>());
            }},
           {"tiles, running maximum", [&] { plain_forward(c, z, q, k, v, o, lse.as<float>()); }},
           {"tensor cores, 16 rows a warp", [&] { flash_forward(c, z, q, k, v, o, lse.as<float>(), 1); }},
           {"32 rows a warp", [&] { flash_forward(c, z, q, k, v, o, lse.as<float>(), 2); }}});
  const auto flash = [&](int tiles) {
    flash_backward(c, z, q, k, v, dout, lse.as<float>(), delta.as<float>(), dq, dk, dv, tiles);
  };
  l.climb("attention_backward", 2.5 * flop, dk,
          {{"tiles", [&] { plain_backward(c, z, q, k, v, dout, lse.as<float>(), delta.as<float>(), dq, dk, dv); }},
           {"tensor cores, 16 rows a warp", [&] { flash(1); }},
           {"32 rows a warp", [&] { flash(2); }}});
}

// The first product of the hard gate: Whisper-small's encoder, half of the rows with each FFN.
void grouped(Context& c, Device& device) {
  Ladder l{c, device};
  Grouped g = {};
  g.rows = 12000, g.n = 3072, g.k = 768, g.groups = 2;
  const View x = l.tensor(DType::bf16, {g.rows, g.k}), y = l.tensor(DType::bf16, {g.rows, g.n});
  const View w0 = l.tensor(DType::bf16, {g.n, g.k}, 0.05f), w1 = l.tensor(DType::bf16, {g.n, g.k}, 0.05f);
  const View bias = l.tensor(DType::f32, {g.n});
  int *order = l.frame.take<int>(g.rows), *ones = l.frame.take<int>(g.rows + 1);
  launch(c, route_kernel, grid_for(g.rows + 1, c.processors), kThreads, order, ones, g.rows);
  g.group[0] = {w0.data, bias.as<float>(), -1, -1};
  g.group[1] = {w1.data, bias.as<float>(), 0, g.rows};
  g.order = order, g.ones = ones, g.a = x.data, g.c = y.data, g.pairs = true;
  const auto blocks = [&](int m, int n) { return g.most_tiles(m) * ((g.n + n - 1) / n); };
  l.climb("gated_ffn_hard, one product", 2.0 * g.rows * g.n * g.k, y,
          {{"plain tiles", [&] { launch(c, grouped_plain_kernel<true, bfloat, bfloat>, blocks(64, 64), kThreads, g); }},
           {"tensor cores, tiles of 64 × 64",
            [&] { launch(c, grouped_kernel<true, bfloat, 64, 64>, blocks(64, 64), kThreads, g); }},
           {"tiles of 128 × 128",
            [&] { launch(c, grouped_kernel<true, bfloat, 128, 128>, blocks(128, 128), kThreads, g); }}});
}

// fc1 of Whisper-small for one token. What counts is the time: the weights are 4.7 MB.
void few(Context& c, Device& device) {
  Ladder l{c, device};
  const int64_t n = 3072, k = 768;
  const View x = l.tensor(DType::bf16, {1, k}), w = l.tensor(DType::bf16, {n, k}, 0.05f),
             y = l.tensor(DType::f32, {1, n});
  FewLinear z{any_of(x), any_of(w)};
  z.y = any_of(y), z.rows = 1, z.n = n, z.k = k;
  l.climb("linear of one row", 2.0 * n * k, y,
          {{"cuBLASLt", [&] { gemm(c, times_transposed(w, 1, rows_of(x), rows_of(y), DType::bf16)); }},
           {"a warp for a row of W", [&] { linear_few(c, z); }}});
}

int run(int index) {
  Device device(index);
  device.use();
  cudaStream_t stream;
  TrapRecord* record;
  device.check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "opening a stream");
  device.check(cudaHostAlloc(reinterpret_cast<void**>(&record), sizeof *record, cudaHostAllocMapped), "pinning memory");
  *record = {};
  Workspace workspace(device);
  GemmState gemm;
  Context c{
      stream, workspace, gemm, Trap{record, 0}, device.properties().multiProcessorCount, device.properties().major};
  std::printf("# %s\nkernel\trung\tms\tTFLOP/s\tgained\tdifference\n", device.properties().name);
  attention(c, device);
  grouped(c, device);
  few(c, device);
  return 0;
}

}  // namespace
}  // namespace cuda
}  // namespace dw

int main(int argc, char** argv) {
  try {
    return dw::cuda::run(argc > 1 ? std::atoi(argv[1]) : 0);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "ladder: %s\n", e.what());
    return 1;
  }
}
