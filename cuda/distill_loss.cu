// Cross-entropy and distillation loss of last hidden rows h [N, D], teacher rows [N, Dt], heads W [V, D] and
// Wt [V, Dt]; the formulas stand in native/reference/distill_loss.cc. No tensor of N × V: rows go through in chunks whose f32
// logits fit the workspace. For a chunk every product is done once, and one kernel with a block for each row does the
// rest while the row's logits are in the second-level cache:
//   1. running maximum and sums
//   2. JS only: the divergence and Σ ps·a, which its gradient needs first
//   3. d total / d logits in the products' type, written over the student's logits
// Then dh = d·W, whose long sum over the vocabulary is cut in parts that are added in order, and dW += dᵀ·h.
#include <algorithm>

#include "distill_rows.cuh"
#include "gemm.h"
#include "kernels.h"

namespace dw {
namespace cuda {

namespace {

// How the work is cut: rows into chunks, the sum over the vocabulary of dh into parts that are computed side by side. A
// head of another type than the products' is converted `block` tokens at a time, and then the parts are one after the
// other.
struct Plan {
  int64_t rows, part, block;
  int parts;
};
Plan plan(const Context& c, const Loss& z, const View& weight, const View& head, DType compute, int64_t workspace) {
  const int64_t width = weight.cols(), widest = std::max(width, head ? head.cols() : 0);
  const bool converts = weight.dtype != compute || (head && head.dtype != compute);
  Plan p = {1, z.vocabulary, z.vocabulary, 1};
  if (converts) {
    const int64_t token = std::max<int64_t>(1, widest * size_of(compute));
    p.block = std::min(z.vocabulary, std::max<int64_t>(64, std::min<int64_t>(8192, workspace / 8 / token)));
    workspace -= p.block * token;
  }
  const int64_t logits = z.stride * 4 * (head ? 2 : 1);
  p.rows = std::max<int64_t>(1, workspace / (logits + 16 * width * 4 + widest * size_of(compute)));
  if (p.rows >= 64) p.rows = p.rows / 64 * 64;
  const int64_t chunks = (z.rows + p.rows - 1) / p.rows;
  if (chunks > 0) p.rows = std::min(p.rows, ((z.rows + chunks - 1) / chunks + 15) / 16 * 16);
  if (weight.dtype != compute || !z.grad) return p;
  // About one tile of 128 × 128 for every processor, and sums of 512 at least.
  const int64_t tiles = std::max<int64_t>(1, (p.rows + 127) / 128 * ((width + 127) / 128));
  const int64_t wanted = std::min<int64_t>({c.processors / tiles, z.vocabulary / 512, 16});
  if (wanted < 2) return p;
  p.part = (z.vocabulary / wanted + 63) / 64 * 64;
  p.parts = int((z.vocabulary + p.part - 1) / p.part);
  return p;
}

char* row_of(const View& v, int64_t row) { return v.as<char>() + row * v.cols() * size_of(v.dtype); }

// to [rows, stride] = rows of hidden · weightᵀ
void logits(Context& c, const Plan& p, const View& hidden, const View& weight, int64_t first, int64_t rows, float* to,
            int64_t stride, DType compute) {
  const int64_t block = weight.dtype == compute ? weight.rows() : p.block;
  for (int64_t v = 0; v < weight.rows(); v += block) {
    Gemm g;
    g.m = rows, g.n = std::min(block, weight.rows() - v), g.k = hidden.cols();
    g.a = row_of(hidden, first), g.a_type = hidden.dtype, g.lda = hidden.cols();
    g.b = row_of(weight, v), g.b_type = weight.dtype, g.ldb = hidden.cols(), g.b_transposed = true;
    g.c = to + v, g.ldc = stride;
    g.compute = compute;
    gemm(c, g);
  }
}

// dhidden [rows, D] = d·W, by way of parts [p.parts][rows][D] when there are several.
void hidden_gradient(Context& c, const Plan& p, const View& weight, int64_t rows, const void* d, int64_t ld,
                     DType compute, float* parts, float* dhidden) {
  const int64_t width = weight.cols(), vocabulary = weight.rows(), n = rows * width;
  const bool together = weight.dtype == compute;
  const int64_t step = together ? p.part : p.block;
  for (int64_t v = 0; v < vocabulary;) {
    const int64_t batch = together ? std::max<int64_t>(1, (vocabulary - v) / step) : 1;
    Gemm g;
    g.m = rows, g.n = width, g.k = std::min(step, vocabulary - v);
    g.a = static_cast<const char*>(d) + v * size_of(compute), g.a_type = compute, g.lda = ld;
    g.b = row_of(weight, v), g.b_type = weight.dtype, g.ldb = width;
    g.c = p.parts > 1 ? parts + v / step * n : dhidden, g.ldc = width;
    g.compute = compute;
    g.beta = !together && v > 0 ? 1 : 0;
    g.batch = batch;
    if (batch > 1) g.stride_a = step, g.stride_b = step * width, g.stride_c = n;
    gemm(c, g);
    v += batch * step;
  }
  if (p.parts > 1 && n > 0) launch(c, join_kernel, grid_for(n, c.processors), kThreads, parts, p.parts, n, dhidden);
}

}  // namespace

void distill_loss(Context& c, const DistillLoss& q) {
  const View &hidden = q.hidden, &weight = q.weight, &teacher = q.teacher_hidden, &head = q.teacher_weight,
             &dweight = q.dweight;
  const int64_t width = hidden.cols();
  const DType compute = q.compute;
  Workspace::Frame frame(c.workspace);
  int* labelled = frame.take<int>(1);
  Loss z;
  z.rows = hidden.rows(), z.vocabulary = weight.rows(), z.stride = (z.vocabulary + 7) / 8 * 8;
  z.kind = q.kind;
  z.all_positions = q.all_positions, z.grad = q.grad;
  z.tau = float(q.temperature), z.epsilon = float(q.epsilon);
  z.smoothing = q.smoothing, z.ce_weight = q.ce_weight, z.kd_weight = q.kd_weight;
  z.labels = q.labels.as<int32_t>(), z.labelled = labelled;
  z.ce_rows = q.ce_rows.as<float>(), z.kd_rows = q.kd_rows.as<float>();
  launch(c, count_kernel, 1, kRowThreads, z.labels, z.rows, z.vocabulary, labelled, c.trap);

  const bool teach = z.kind != Distill::none;
  const Plan p = plan(c, z, weight, head, compute, q.workspace);
  float* s = frame.take<float>(std::min(p.rows, z.rows) * z.stride);
  float* t = teach ? frame.take<float>(std::min(p.rows, z.rows) * z.stride) : nullptr;
  float* parts = p.parts > 1 ? frame.take<float>(p.parts * std::min(p.rows, z.rows) * width) : nullptr;
  for (int64_t first = 0; first < z.rows; first += p.rows) {
    const int64_t rows = std::min(p.rows, z.rows - first);
    logits(c, p, hidden, weight, first, rows, s, z.stride, compute);
    if (teach) logits(c, p, teacher, head, first, rows, t, z.stride, compute);
    launch(c, compute == DType::bf16 ? row_kernel<bfloat> : row_kernel<float>, rows, kRowThreads, z, first, s, t);
    if (!z.grad) continue;
    const int64_t ld = compute == DType::bf16 ? 2 * z.stride : z.stride;
    hidden_gradient(c, p, weight, rows, s, ld, compute, parts, q.dhidden.as<float>() + first * width);
    if (!dweight) continue;
    Gemm g;
    g.m = z.vocabulary, g.n = width, g.k = rows;
    g.a = s, g.a_type = compute, g.lda = ld, g.a_transposed = true;
    g.b = row_of(hidden, first), g.b_type = hidden.dtype, g.ldb = width;
    g.c = dweight.data, g.ldc = width;
    g.compute = compute;
    g.beta = 1;
    gemm(c, g);
  }
  launch(c, stats_kernel, 1, kRowThreads, z, q.stats.as<float>());
}

}  // namespace cuda
}  // namespace dw
