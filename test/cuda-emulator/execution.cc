// Threads as fibres: see execution.h.
#include <cstdio>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

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
  static char* const stacks = static_cast<char*>(std::malloc(kStack * kMostThreads));
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
#ifdef __SANITIZE_ADDRESS__
      // What the abandoned frames of its last thread have marked there.
      __asan_unpoison_memory_region(top - 1024, 1024 * sizeof *top);
#endif
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
