// The part of cuBLASLt that cuda/runtime/cublaslt.h declares, as plain loops: column-major, operands in f32 or bf16, sums in
// f32. As the library, it has no f32 bias for a bf16 result.
#include <cstring>
#include <vector>

#include "core/tensor.h"
#include "runtime/cublaslt.h"

namespace dw {
namespace cuda {

struct LtMatmulDescOpaque {
  int32_t a_transposed = 0, b_transposed = 0;
  uint32_t epilogue = kLtEpilogueDefault;
  const float* bias = nullptr;
};
struct LtLayoutOpaque {
  cudaDataType_t type;
  int64_t rows, columns, ld;
  int64_t stride = 0;
  int32_t batch = 1;
};

namespace {

float element(const void* p, cudaDataType_t type, int64_t i) {
  return type == CUDA_R_32F ? static_cast<const float*>(p)[i] : to_float(static_cast<const bf16*>(p)[i]);
}

// Lines of k numbers: line i is what the operand's element i of the result's rows (or columns) is summed over.
std::vector<float> lines(const void* p, LtLayout l, int64_t from, int64_t count, int64_t k, bool lines_are_rows) {
  std::vector<float> out(size_t(count * k));
  for (int64_t i = 0; i < count; i++)
    for (int64_t j = 0; j < k; j++)
      out[size_t(i * k + j)] = element(p, l->type, from + (lines_are_rows ? j * l->ld + i : i * l->ld + j));
  return out;
}

float dot(const float* x, const float* y, int64_t k) {
  float s[8] = {};
  int64_t i = 0;
  for (; i + 8 <= k; i += 8)
    for (int l = 0; l < 8; l++) s[l] += x[i + l] * y[i + l];
  for (; i < k; i++) s[0] += x[i] * y[i];
  return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
}

LtStatus set(void* field, size_t size, const void* value, size_t given) {
  if (size != given) return 7;  // an invalid value
  std::memcpy(field, value, size);
  return 0;
}

LtStatus desc_set(LtMatmulDesc d, int attribute, const void* value, size_t size) {
  switch (attribute) {
    case kLtDescTransA:
      return set(&d->a_transposed, sizeof d->a_transposed, value, size);
    case kLtDescTransB:
      return set(&d->b_transposed, sizeof d->b_transposed, value, size);
    case kLtDescEpilogue:
      return set(&d->epilogue, sizeof d->epilogue, value, size);
    case kLtDescBiasPointer:
      return set(&d->bias, sizeof d->bias, value, size);
    case kLtDescBiasType:
      return *static_cast<const int32_t*>(value) == CUDA_R_32F ? 0 : 7;
    default:
      return 7;
  }
}

LtStatus layout_set(LtLayout l, int attribute, const void* value, size_t size) {
  return attribute == kLtLayoutBatchCount ? set(&l->batch, sizeof l->batch, value, size)
                                          : set(&l->stride, sizeof l->stride, value, size);
}

// The first of two is none that can be used.
LtStatus heuristic(LtHandle, LtMatmulDesc d, LtLayout, LtLayout, LtLayout, LtLayout out, LtPreference, int wanted,
                   LtHeuristic* results, int* found) {
  *found = d->epilogue == kLtEpilogueBias && out->type != CUDA_R_32F ? 0 : 2;
  if (*found == 0 || wanted < 2 || emulator::fails("cublasLtMatmulAlgoGetHeuristic")) return 15;  // not supported
  results[0] = results[1] = {};
  results[0].state = 15;
  results[1].workspace_size = 256;
  return 0;
}

void multiply(const LtMatmulDescOpaque* d, float times, const void* a, LtLayout la, const void* b, LtLayout lb,
              float keep, const void* c, LtLayout lc, void* out, LtLayout lo, void* workspace, size_t workspace_size) {
  std::memset(workspace, 0xff, workspace_size);
  const int64_t m = lo->rows, n = lo->columns, k = d->a_transposed ? la->rows : la->columns;
  for (int64_t batch = 0; batch < lo->batch; batch++) {
    const std::vector<float> x = lines(a, la, batch * la->stride, m, k, !d->a_transposed);
    const std::vector<float> y = lines(b, lb, batch * lb->stride, n, k, d->b_transposed != 0);
    for (int64_t j = 0; j < n; j++)
      for (int64_t i = 0; i < m; i++) {
        float sum = times * dot(&x[size_t(i * k)], &y[size_t(j * k)], k);
        if (keep != 0) sum += keep * element(c, lc->type, batch * lc->stride + j * lc->ld + i);
        if (d->epilogue == kLtEpilogueBias) sum += d->bias[i];
        const int64_t at = batch * lo->stride + j * lo->ld + i;
        if (lo->type == CUDA_R_32F)
          static_cast<float*>(out)[at] = sum;
        else
          static_cast<bf16*>(out)[at] = to_bf16(sum);
      }
  }
}

// What the call says is read when it is made; a graph keeps it.
LtStatus matmul(LtHandle, LtMatmulDesc d, const void* alpha, const void* a, LtLayout la, const void* b, LtLayout lb,
                const void* beta, const void* c, LtLayout lc, void* out, LtLayout lo, const LtAlgo*, void* workspace,
                size_t workspace_size, cudaStream_t stream) {
  if (emulator::fails(emulator::capturing() ? "cublasLtMatmul, captured" : "cublasLtMatmul"))
    return 14;                                // an internal error
  if (emulator::fails("context")) return 13;  // the execution failed
  const float times = *static_cast<const float*>(alpha), keep = *static_cast<const float*>(beta);
  emulator::put(stream, emulator::Work::product, [=, desc = *d, x = *la, y = *lb, z = *lc, result = *lo]() mutable {
    multiply(&desc, times, a, &x, b, &y, keep, c, &z, out, &result, workspace, workspace_size);
  });
  return 0;
}

template <class T>
LtStatus destroy(T* made) {
  delete made;
  return 0;
}

}  // namespace

const CublasLt* cublaslt() {
  if (emulator::fails("no cuBLASLt")) return nullptr;
  static const CublasLt table = {
      "emulated",
      130000,
      [] { return size_t(130000); },
      [](LtStatus) { return "refused by the emulation"; },
      [](LtHandle* handle) {
        *handle = reinterpret_cast<LtHandle>(handle);
        return 0;
      },
      [](LtHandle) { return 0; },
      [](LtMatmulDesc* d, int, cudaDataType_t) {
        *d = new LtMatmulDescOpaque();
        return 0;
      },
      destroy<LtMatmulDescOpaque>,
      desc_set,
      [](LtLayout* l, cudaDataType_t type, uint64_t rows, uint64_t columns, int64_t ld) {
        *l = new LtLayoutOpaque{type, int64_t(rows), int64_t(columns), ld};
        return 0;
      },
      destroy<LtLayoutOpaque>,
      layout_set,
      [](LtPreference*) { return 0; },
      [](LtPreference) { return 0; },
      [](LtPreference, int, const void*, size_t) { return 0; },
      heuristic,
      matmul,
  };
  return &table;
}

const std::string& cublaslt_problem() {
  static const std::string problem = "cuBLASLt was not found by the emulation";
  return problem;
}

}  // namespace cuda
}  // namespace dw
