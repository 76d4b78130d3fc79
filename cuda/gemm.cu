#include <algorithm>
#include <cstring>
#include <string>
#include <unordered_map>
#include <vector>

#include "cast.h"
#include "core/error.h"
#include "gemm.h"
#include "math.cuh"
#include "runtime/cublaslt.h"
#include "runtime/launch.cuh"

namespace dw {
namespace cuda {

namespace {

constexpr int64_t kWorkspace = 32 << 20;
constexpr int kCandidates = 4;  // that are asked for: the first one may not fit the memory that it may have

// c[i, j] = from[i, j]·scale + bias[j]: what cuBLASLt cannot do for a pair of types, and products over nothing.
template <class T>
__global__ void finish_kernel(T* c, const T* from, int64_t m, int64_t n, int64_t ldc, float scale,
                              const float* __restrict__ bias) {
  DW_GRID_STRIDE(i, m * n) {
    const int64_t j = i % n, at = i / n * ldc + j;
    put(c, at, (scale == 0 ? 0.0f : get(from, at) * scale) + (bias ? bias[j] : 0.0f));
  }
}

void finish(Context& context, const Gemm& g, float scale, const void* from) {
  with_type(g.c_type, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    for (int64_t b = 0; b < g.batch; b++)
      launch(context, finish_kernel<T>, grid_for(g.m * g.n, context.processors), kThreads,
             static_cast<T*>(g.c) + b * g.stride_c, static_cast<const T*>(from) + b * g.stride_c, g.m, g.n, g.ldc,
             scale, g.bias);
  });
}

cudaDataType_t data_type(DType t) { return t == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F; }

// What an algorithm was chosen for.
struct Key {
  int64_t m, n, k, lda, ldb, ldc, batch, stride_a, stride_b, stride_c;
  uint32_t align_a, align_b, align_c, align_bias;  // of the addresses, in bytes
  uint8_t compute, c_type, a_transposed, b_transposed, bias, pad[3];
  bool operator==(const Key& o) const { return std::memcmp(this, &o, sizeof o) == 0; }
};
struct KeyHash {
  size_t operator()(const Key& key) const {
    uint64_t h = 14695981039346656037ull;
    const unsigned char* p = reinterpret_cast<const unsigned char*>(&key);
    for (size_t i = 0; i < sizeof key; i++) h = (h ^ p[i]) * 1099511628211ull;
    return size_t(h);
  }
};

// No algorithm asks for more than the longest load; told of more, it might differ from one tensor to the next of a
// shape.
constexpr uint64_t kMostAligned = 16;
uint32_t alignment(const void* p) {
  const uint64_t address = reinterpret_cast<uint64_t>(p);
  return uint32_t(address == 0 ? kMostAligned : std::min(kMostAligned, address & (~address + 1)));
}

struct Plan {
  LtMatmulDesc desc = nullptr;
  LtLayout a = nullptr, b = nullptr, c = nullptr;
  LtHeuristic chosen = {};
  bool known = false;  // to cuBLASLt; else gemm_plain takes it
  bool bias_fused = false;
};

}  // namespace

struct GemmState::Impl {
  const CublasLt* lt = nullptr;
  LtHandle handle = nullptr;
  std::unordered_map<Key, Plan, KeyHash> plans;

  void check(LtStatus status, const char* doing) const {
    if (status != 0) throw Error("ERR_CUDA", std::string("cuBLASLt: ") + doing + ": " + lt->status_string(status));
  }
  void open() {
    if (handle) return;
    lt = cublaslt();
    if (!lt) throw Error("ERR_CUDA", cublaslt_problem());
    check(lt->create(&handle), "opening it");
  }
  void destroy(const Plan& p) const {
    if (p.desc) lt->desc_destroy(p.desc);
    for (LtLayout l : {p.a, p.b, p.c})
      if (l) lt->layout_destroy(l);
  }
  ~Impl() {
    for (const auto& p : plans) destroy(p.second);
    if (handle) lt->destroy(handle);
  }

  LtLayout layout(DType type, int64_t rows, int64_t columns, int64_t ld, int64_t batch, int64_t stride) const {
    LtLayout l = nullptr;
    check(lt->layout_create(&l, data_type(type), uint64_t(rows), uint64_t(columns), ld), "describing a matrix");
    if (batch > 1) {
      const int32_t count = int32_t(batch);
      check(lt->layout_set(l, kLtLayoutBatchCount, &count, sizeof count), "describing a batch");
      check(lt->layout_set(l, kLtLayoutBatchStride, &stride, sizeof stride), "describing a batch");
    }
    return l;
  }

  // Leaves p unknown when cuBLASLt has no algorithm for it.
  void choose(const Key& key, const Gemm& g, Plan& p) const {
    // Row-major C = A·B is column-major Cᵀ = Bᵀ·Aᵀ: B goes first, and each operand keeps its own transposition.
    check(lt->desc_create(&p.desc, kLtCompute32F, CUDA_R_32F), "describing a product");
    const int32_t first = g.b_transposed ? kLtOpT : kLtOpN, second = g.a_transposed ? kLtOpT : kLtOpN;
    check(lt->desc_set(p.desc, kLtDescTransA, &first, sizeof first), "describing a product");
    check(lt->desc_set(p.desc, kLtDescTransB, &second, sizeof second), "describing a product");
    if (key.bias) {
      const uint32_t epilogue = kLtEpilogueBias;
      const int32_t type = CUDA_R_32F;
      check(lt->desc_set(p.desc, kLtDescEpilogue, &epilogue, sizeof epilogue), "describing a product");
      check(lt->desc_set(p.desc, kLtDescBiasPointer, &g.bias, sizeof g.bias), "describing a product");
      check(lt->desc_set(p.desc, kLtDescBiasType, &type, sizeof type), "describing a product");
    }
    p.b = g.b_transposed ? layout(g.compute, g.k, g.n, g.ldb, g.batch, g.stride_b)
                         : layout(g.compute, g.n, g.k, g.ldb, g.batch, g.stride_b);
    p.a = g.a_transposed ? layout(g.compute, g.m, g.k, g.lda, g.batch, g.stride_a)
                         : layout(g.compute, g.k, g.m, g.lda, g.batch, g.stride_a);
    p.c = layout(g.c_type, g.n, g.m, g.ldc, g.batch, g.stride_c);
    LtPreference preference = nullptr;
    check(lt->preference_create(&preference), "choosing an algorithm");
    const uint64_t workspace = kWorkspace;
    const uint32_t align[] = {key.align_b, key.align_a, key.align_c, key.align_c};
    lt->preference_set(preference, kLtPreferenceWorkspace, &workspace, sizeof workspace);
    for (int i = 0; i < 4; i++) lt->preference_set(preference, kLtPreferenceAlignA + i, &align[i], sizeof align[i]);
    int found = 0;
    LtHeuristic candidates[kCandidates] = {};
    const LtStatus status =
        lt->heuristic(handle, p.desc, p.b, p.a, p.c, p.c, preference, kCandidates, candidates, &found);
    lt->preference_destroy(preference);
    p.bias_fused = key.bias != 0;
    for (int i = 0; i < found && status == 0 && !p.known; i++) {
      p.known = candidates[i].state == 0;
      p.chosen = candidates[i];
    }
  }

  Plan& plan(const Gemm& g) {
    Key key;
    std::memset(&key, 0, sizeof key);
    key.m = g.m;
    key.n = g.n;
    key.k = g.k;
    key.lda = g.lda;
    key.ldb = g.ldb;
    key.ldc = g.ldc;
    key.batch = g.batch;
    key.stride_a = g.stride_a;
    key.stride_b = g.stride_b;
    key.stride_c = g.stride_c;
    key.align_a = alignment(g.a);
    key.align_b = alignment(g.b);
    key.align_c = std::min(alignment(g.c), alignment(g.addend));
    key.align_bias = alignment(g.bias);
    key.compute = uint8_t(g.compute);
    key.c_type = uint8_t(g.c_type);
    key.a_transposed = g.a_transposed;
    key.b_transposed = g.b_transposed;
    key.bias = g.bias != nullptr;
    const auto known = plans.find(key);
    if (known != plans.end()) return known->second;
    Plan p;
    const Key asked = key;
    try {
      choose(key, g, p);
      if (!p.known && key.bias) {
        // No f32 bias for this pair of types: it is added in a pass of its own.
        destroy(p);
        p = Plan();
        key.bias = 0;
        choose(key, g, p);
      }
    } catch (...) {
      destroy(p);
      throw;
    }
    return plans.emplace(asked, p).first->second;
  }
};

GemmState::GemmState() : impl_(std::make_unique<Impl>()) {}
GemmState::~GemmState() = default;

// An operand in the type of the product: itself, or a copy of the whole batch without gaps between its rows.
static const void* operand(Context& context, Workspace::Frame& frame, const void* x, DType type, DType wanted,
                           int64_t rows, int64_t columns, int64_t ld, int64_t batch, int64_t stride, int64_t* new_ld,
                           int64_t* new_stride) {
  *new_ld = ld;
  *new_stride = stride;
  if (type == wanted) return x;
  char* copy = frame.take<char>(batch * rows * ld * size_of(wanted));
  // Rows keep their distance: one pass over contiguous memory, whatever lies between them.
  const int64_t count = rows == 0 ? 0 : (rows - 1) * ld + columns;
  for (int64_t b = 0; b < batch; b++)
    convert(context, static_cast<const char*>(x) + b * stride * size_of(type), type,
            copy + b * rows * ld * size_of(wanted), wanted, count);
  *new_stride = rows * ld;
  return copy;
}

void gemm(Context& context, const Gemm& given) {
  if (given.m == 0 || given.n == 0 || given.batch == 0) return;
  if (given.k == 0) return finish(context, given, given.beta, given.addend ? given.addend : given.c);
  GemmState::Impl& state = context.gemm.impl();
  state.open();
  Workspace::Frame frame(context.workspace);
  Gemm g = given;
  const int64_t a_rows = g.a_transposed ? g.k : g.m, a_columns = g.a_transposed ? g.m : g.k;
  const int64_t b_rows = g.b_transposed ? g.n : g.k, b_columns = g.b_transposed ? g.k : g.n;
  g.a = operand(context, frame, g.a, g.a_type, g.compute, a_rows, a_columns, g.lda, g.batch, g.stride_a, &g.lda,
                &g.stride_a);
  g.b = operand(context, frame, g.b, g.b_type, g.compute, b_rows, b_columns, g.ldb, g.batch, g.stride_b, &g.ldb,
                &g.stride_b);
  Plan& p = state.plan(g);
  if (!p.known) return gemm_plain(context, g);
  if (p.bias_fused)
    state.check(state.lt->desc_set(p.desc, kLtDescBiasPointer, &g.bias, sizeof g.bias), "setting the bias");
  void* scratch = p.chosen.workspace_size ? frame.take<char>(int64_t(p.chosen.workspace_size)) : nullptr;
  const float one = 1;
  state.check(state.lt->matmul(state.handle, p.desc, &one, g.b, p.b, g.a, p.a, &g.beta, g.addend ? g.addend : g.c, p.c,
                               g.c, p.c, &p.chosen.algo, scratch, p.chosen.workspace_size, context.stream),
              "running a product");
  if (g.bias && !p.bias_fused) finish(context, g, 1, g.c);
}

}  // namespace cuda
}  // namespace dw
