// The emulated device as a plugin (native/core/plugin.h): memory is the host's, products are plain loops.
#include <cstdio>
#include <vector>

#include "cast.h"
#include "core/error.h"
#include "core/plugin.h"
#include "gemm.h"
#include "kernels.h"

EmulatedIndex threadIdx, blockIdx, blockDim, gridDim;

// Saves the caller's registers and stack at *from, and goes on where `to` was saved.
extern "C" void emulator_switch(void** from, void* to);
asm(R"(
.globl emulator_switch
emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");

namespace emulator {

namespace {

constexpr int kMostThreads = 1024;
constexpr size_t kStack = 64 << 10;

struct Copy {
  void* to;
  const void* from;
  bool valid;
};
struct Fibre {
  void* stack;
  bool done;
  std::vector<std::vector<Copy>> groups;  // of asynchronous copies, the oldest first
  std::vector<Copy> open;                 // not committed yet
};
struct Warp {
  int arrived, round, alive;
  void* operands[32];
};

Fibre fibres[kMostThreads];
Warp warps[kMostThreads / 32];
int count, current, arrived, round, alive;
void* outside;
const std::function<void()>* body;
// 0: ascending, 1: descending, 2: anyhow.
const int order = getenv("DW_EMULATOR_ORDER") ? std::atoi(getenv("DW_EMULATOR_ORDER")) : 0;

// Another thread that has not ended goes on, or the launch when there is none.
void yield() {
  static unsigned random = 1;
  random = random * 1664525u + 1013904223u;
  const int from = current, skip = order == 2 ? int(random >> 8) % count : 0;
  for (int i = 1; i <= count; i++) {
    const int next = order == 1 ? (from + count - i) % count : (from + i + skip) % count;
    if (fibres[next].done) continue;
    current = next;
    threadIdx.x = unsigned(next);
    if (next != from) emulator_switch(&fibres[from].stack, fibres[next].stack);
    return;
  }
  void* nowhere;
  emulator_switch(&nowhere, outside);
}

void thread() {
  (*body)();
  Fibre& f = fibres[current];
  Warp& w = warps[current / 32];
  if (!f.open.empty()) fail("a thread ends with copies that it has not committed");
  f.done = true;
  alive--;
  w.alive--;
  if (w.arrived > 0) fail("a thread ends while its warp waits for it");
  if (arrived > 0) fail("a thread ends while its block waits for it");
  yield();
}

}  // namespace

void fail(const char* what) {
  std::fprintf(stderr, "emulated device: block %u, thread %u: %s\n", blockIdx.x, threadIdx.x, what);
  std::abort();
}

void run(int64_t blocks, int threads, const std::function<void()>& kernel) {
  static char* stacks = static_cast<char*>(std::malloc(kStack * kMostThreads));
  if (blocks < 1 || blocks > 0x7fffffff || threads < 1 || threads > kMostThreads) fail("a launch of a wrong size");
  body = &kernel;
  count = threads;
  blockDim.x = unsigned(threads);
  gridDim.x = unsigned(blocks);
  for (int64_t b = 0; b < blocks; b++) {
    blockIdx.x = unsigned(b);
    arrived = round = 0;
    alive = count;
    for (int i = 0; i < kMostThreads / 32; i++) warps[i] = {0, 0, max(0, min(32, count - i * 32)), {}};
    for (int i = 0; i < count; i++) {
      fibres[i] = {};
      void** top = reinterpret_cast<void**>(stacks + kStack * size_t(i + 1));
      *--top = nullptr;
      *--top = reinterpret_cast<void*>(thread);
      for (int r = 0; r < 6; r++) *--top = nullptr;
      fibres[i].stack = top;
    }
    current = order == 0 ? 0 : count - 1;
    threadIdx.x = unsigned(current);
    emulator_switch(&outside, fibres[current].stack);
  }
}

void barrier() {
  if (alive != count) fail("a barrier that some threads have left");
  const int mine = round;
  if (++arrived == count) {
    arrived = 0;
    round++;
  } else {
    while (round == mine) yield();
  }
}

void warp(void* operand, void (*work)(void** all)) {
  Warp& w = warps[current / 32];
  if (w.alive != 32) fail("an instruction of a warp that some lanes have left");
  w.operands[current % 32] = operand;
  const int mine = w.round;
  if (++w.arrived == 32) {
    work(w.operands);
    w.arrived = 0;
    w.round++;
  } else {
    while (w.round == mine) yield();
  }
}

void copy_async(void* to, const void* from, bool valid) {
  fibres[current].open.push_back({to, from, valid});
  std::memset(to, 0xff, 16);
}
void commit() {
  Fibre& f = fibres[current];
  f.groups.push_back(std::move(f.open));
  f.open.clear();
}
void wait(int pending) {
  Fibre& f = fibres[current];
  while (int(f.groups.size()) > pending) {
    for (const Copy& c : f.groups.front())
      if (c.valid)
        std::memcpy(c.to, c.from, 16);
      else
        std::memset(c.to, 0, 16);
    f.groups.erase(f.groups.begin());
  }
}

}  // namespace emulator

namespace dw {
namespace cuda {

class Device {};

namespace {

Device device;
TrapRecord trapped;
std::vector<void*> taken;  // by frames of the workspace

// What nobody has written yet is NaN.
void* fresh(int64_t bytes) {
  const size_t size = size_t(bytes + 511) / 256 * 256;
  return std::memset(std::aligned_alloc(256, size), 0xff, size);
}

float element(const void* p, DType type, int64_t i) {
  return type == DType::f32 ? static_cast<const float*>(p)[i] : to_float(static_cast<const bf16*>(p)[i]);
}
float rounded(float v, DType type) { return type == DType::bf16 ? to_float(to_bf16(v)) : v; }

template <class Body>
int guard(dw_fault* fault, const Body& body) {
  try {
    body();
    return 0;
  } catch (const Error& e) {
    std::snprintf(fault->code, sizeof fault->code, "%s", e.code);
    std::snprintf(fault->message, sizeof fault->message, "%s", e.what());
    return 1;
  }
}

View view_of(const dw_tensor& t) {
  View v;
  v.data = t.data;
  v.dtype = DType(t.dtype);
  v.rank = t.rank;
  std::memcpy(v.shape, t.shape, sizeof v.shape);
  v.present = t.present != 0;
  return v;
}

int run(dw_queue*, int32_t op, const dw_call* call, dw_fault* fault) {
  static Workspace workspace(device);
  static GemmState gemm;
  static const char* processors = getenv("DW_EMULATOR_PROCESSORS");
  Call c;
  for (int i = 0; i < call->in_count; i++) c.in.push_back(view_of(call->in[i]));
  for (int i = 0; i < call->out_count; i++) {
    c.out.push_back(view_of(call->out[i]));
    if (call->out[i].data) std::memset(call->out[i].data, 0xff, size_t(c.out.back().bytes()));
  }
  c.num.assign(call->num, call->num + call->num_count);
  return guard(fault, [&] {
    Context context{nullptr, workspace, gemm, Trap{&trapped, op}, processors ? std::atoi(processors) : 4, 9};
    launcher(op)(context, c);
  });
}
int upload(dw_queue*, void* to, const void* from, int64_t bytes, dw_fault*) {
  std::memcpy(to, from, size_t(bytes));
  return 0;
}
int download(dw_queue*, void* to, const void* from, int64_t bytes, dw_fault* fault) {
  std::memcpy(to, from, size_t(bytes));
  return guard(fault, [] { throw_trap(trapped); });
}

}  // namespace

Workspace::~Workspace() = default;
void* Workspace::take(int64_t bytes) {
  used_++;
  return taken.emplace_back(fresh(bytes));
}
void Workspace::rewind(std::pair<size_t, int64_t> mark) {
  for (; used_ > mark.second; used_--) {
    std::free(taken.back());
    taken.pop_back();
  }
}

struct GemmState::Impl {};
GemmState::GemmState() = default;
GemmState::~GemmState() = default;

void gemm(Context&, const Gemm& g) {
  for (int64_t b = 0; b < g.batch; b++)
    for (int64_t i = 0; i < g.m; i++)
      for (int64_t j = 0; j < g.n; j++) {
        float sum = 0;
        for (int64_t k = 0; k < g.k; k++)
          sum += rounded(element(g.a, g.a_type, b * g.stride_a + (g.a_transposed ? k * g.lda + i : i * g.lda + k)),
                         g.compute) *
                 rounded(element(g.b, g.b_type, b * g.stride_b + (g.b_transposed ? j * g.ldb + k : k * g.ldb + j)),
                         g.compute);
        const int64_t at = b * g.stride_c + i * g.ldc + j;
        if (g.beta != 0) sum += g.beta * element(g.c, g.c_type, at);
        if (g.bias) sum += g.bias[j];
        if (g.c_type == DType::f32)
          static_cast<float*>(g.c)[at] = sum;
        else
          static_cast<bf16*>(g.c)[at] = to_bf16(sum);
      }
}

}  // namespace cuda
}  // namespace dw

extern "C" {
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  std::memset(to, value, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}

__attribute__((visibility("default"))) const dw_plugin* distilwhisper_plugin() {
  using namespace dw::cuda;
  static const dw_plugin plugin = {
      DW_PLUGIN_ABI,
      uint32_t(op_count()),
      op_names(),
      op_present(),
      "emulated",
      [](dw_report* r) {
        std::memset(r, 0, sizeof *r);
        r->driver_version = r->runtime_version = CUDART_VERSION;
      },
      [](int32_t* count, dw_fault*) {
        *count = 1;
        return 0;
      },
      [](int32_t, dw_device_info* info, dw_fault*) {
        std::memset(info, 0, sizeof *info);
        std::strcpy(info->name, "emulated device");
        info->major = 9, info->usable = 1, info->processors = 4, info->memory_bytes = int64_t(8) << 30;
        return 0;
      },
      [](int32_t, dw_device** d, dw_fault*) {
        *d = reinterpret_cast<dw_device*>(&device);
        return 0;
      },
      [](dw_device*) {},
      [](const dw_device*, dw_fault*) { return 0; },
      [](dw_device*, dw_memory_info* info, dw_fault*) {
        *info = {int64_t(8) << 30, int64_t(8) << 30, 0, 0};
        return 0;
      },
      [](dw_device*, int64_t bytes, void** block, dw_fault*) {
        *block = fresh(bytes);
        return 0;
      },
      [](dw_device*, void* block) { std::free(block); },
      [](dw_device*, void* to, const void* from, int64_t bytes, dw_fault*) {
        std::memcpy(to, from, size_t(bytes));
        return 0;
      },
      [](dw_device*, dw_queue** queue, dw_fault*) {
        *queue = reinterpret_cast<dw_queue*>(&device);
        return 0;
      },
      [](dw_queue*) {},
      run,
      upload,
      download,
      [](dw_queue*, dw_fault* fault) { return guard(fault, [] { throw_trap(trapped); }); }};
  return &plugin;
}
}
