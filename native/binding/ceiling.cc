#include "binding/ceiling.h"

#include <atomic>
#include <chrono>
#include <cstring>
#include <numeric>
#include <thread>
#include <vector>

#include "core/memory.h"
#include "core/thread.h"

#if defined(__linux__)
#include <sched.h>
#include <unistd.h>
#endif

namespace dw {

namespace {

constexpr double kSeconds = 0.1;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// A ceiling is that of `threads` processors: two threads must not share one because the other is busy as they start.
void pin([[maybe_unused]] int thread) {
#if defined(__linux__)
  cpu_set_t allowed, one;
  if (sched_getaffinity(getpid(), sizeof allowed, &allowed)) return;
  const int count = CPU_COUNT(&allowed);
  for (int cpu = 0, seen = 0; cpu < CPU_SETSIZE; cpu++)
    if (CPU_ISSET(cpu, &allowed) && seen++ == thread % count) {
      CPU_ZERO(&one);
      CPU_SET(cpu, &one);
      sched_setaffinity(0, sizeof one, &one);
    }
#endif
}

// Runs step(thread), which returns the work that it did, over and over on every thread; work per second in 1e9. All
// threads count from one start: where they take turns on fewer processors, their rates must not add up to more.
template <class Prepare, class Step>
double rate(int threads, const Prepare& prepare, const Step& step) {
  constexpr double kNever = -1;
  std::atomic<int> ready{0};
  std::atomic<double> start{0};  // 0: not yet
  std::vector<double> rates(static_cast<size_t>(threads));
  std::vector<std::thread> team;
  const auto measure = [&](int t) {
    pin(t);
    prepare(t);
    if (++ready == threads) start = now();
    while (start == 0) std::this_thread::yield();
    if (start == kNever) return;
    double work = 0, seconds = 0;
    do {
      work += step(t);
    } while ((seconds = now() - start) < kSeconds);
    rates[size_t(t)] = work / seconds * 1e-9;
  };
  try {
    for (int t = 0; t < threads; t++) team.push_back(start_thread([&measure, t] { measure(t); }));
  } catch (...) {
    start = kNever;
    for (std::thread& thread : team) thread.join();
    throw;
  }
  for (std::thread& thread : team) thread.join();
  return std::accumulate(rates.begin(), rates.end(), 0.0);
}

// Each thread reads its own part of the buffer, from front to back, over and over.
double read_rate(const cpu::CeilingLoops& loops, int threads, int64_t bytes) {
  constexpr int64_t kPiece = 1 << 20;
  const int64_t part = (bytes / threads / kPiece > 0 ? bytes / threads / kPiece : 1) * kPiece;
  struct Buffer {
    explicit Buffer(int64_t size) : data(static_cast<char*>(allocate(size))) {}
    ~Buffer() { deallocate(data); }
    char* const data;
  } buffer(part * threads);
  std::vector<int64_t> at(size_t(threads), 0);
  return rate(
      threads, [&](int t) { std::memset(buffer.data + t * part, 1, size_t(part)); },
      [&](int t) {
        int64_t& piece = at[size_t(t)];
        loops.read(buffer.data + t * part + piece, kPiece);
        piece = (piece + kPiece) % part;
        return double(kPiece);
      });
}

}  // namespace

double measure_ceiling(cpu::Isa isa, Ceiling what, int threads, int64_t bytes) {
  const cpu::CeilingLoops& loops = cpu::ceiling_loops(isa);
  if (what == Ceiling::read) return read_rate(loops, threads, bytes);
  const bool bf16 = what == Ceiling::bf16;
  return rate(
      threads,
      [&](int) {
        if (bf16) loops.bf16_prepare();
      },
      [&](int) { return bf16 ? loops.bf16() : loops.f32(); });
}

}  // namespace dw
