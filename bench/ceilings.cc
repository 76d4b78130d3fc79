// What this machine can do at most, measured. Reads lines "<what> <threads>" and answers each with one number:
//   f32    GFLOP/s of fused multiply-adds on registers        dot    of vdpbf16ps
//   amx    GFLOP/s of tdpbf16ps on tiles                      read   GB/s of reading a buffer far larger than a cache
// "null": this machine, or the compiler, lacks the instruction. The first line printed says which vectors are in use.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__linux__)
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__AMX_BF16__) && defined(__linux__)
#define DW_AMX 1
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kBytes = 64;
const char* const kVectors = "AVX-512";
#elif defined(__AVX__)
constexpr int kBytes = 32;
const char* const kVectors = "AVX2";
#else
constexpr int kBytes = 16;
const char* const kVectors = "128-bit vectors";
#endif
typedef float Vector __attribute__((vector_size(kBytes)));
constexpr int kLanes = kBytes / 4;
// Sums that do not wait for each other: more than latency × width of any processor, and no more than its registers.
constexpr int kChains = kBytes == 64 ? 24 : 12;
constexpr double kSeconds = 0.1;
constexpr int64_t kBufferBytes = int64_t(1) << 30;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

volatile float sink;

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

// Runs step() (which returns the work that it did) on every thread for kSeconds; returns work per second in 1e9.
template <class Step>
double rate(int threads, const Step& step) {
  std::atomic<int> ready{0};
  std::vector<double> rates(threads);
  std::vector<std::thread> team;
  for (int t = 0; t < threads; t++)
    team.emplace_back([&, t] {
      pin(t);
      auto state = step(t);
      ready++;
      while (ready < threads) {
      }
      const double start = now();
      double work = 0, seconds = 0;
      do {
        work += state();
      } while ((seconds = now() - start) < kSeconds);
      rates[t] = work / seconds * 1e-9;
    });
  double sum = 0;
  for (int t = 0; t < threads; t++) {
    team[t].join();
    sum += rates[t];
  }
  return sum;
}

double fma_work() {
  Vector sums[kChains] = {}, a, b;
  for (int i = 0; i < kLanes; i++) a[i] = 0.5f, b[i] = 1.0f;
  constexpr int kSteps = 4096;
  for (int s = 0; s < kSteps; s++) {
    // The compiler must not see that the factors never change.
    __asm__ volatile("" : "+x"(a), "+x"(b));
#pragma GCC unroll 24
    for (int c = 0; c < kChains; c++) sums[c] = sums[c] * a + b;
  }
  for (int c = 1; c < kChains; c++) sums[0] += sums[c];
  sink = sums[0][0];
  return 2.0 * kLanes * kChains * kSteps;
}

#if defined(__AVX512BF16__)
double dot_work() {
  __m512 sums[kChains];
  for (auto& s : sums) s = _mm512_setzero_ps();
  __m512i a = _mm512_set1_epi32(0x3F803F80), b = a;
  constexpr int kSteps = 4096;
  for (int s = 0; s < kSteps; s++) {
    __asm__ volatile("" : "+v"(a), "+v"(b));
#pragma GCC unroll 24
    for (int c = 0; c < kChains; c++) sums[c] = _mm512_dpbf16_ps(sums[c], (__m512bh)a, (__m512bh)b);
  }
  for (int c = 1; c < kChains; c++) sums[0] = _mm512_add_ps(sums[0], sums[c]);
  sink = _mm512_cvtss_f32(sums[0]);
  return 4.0 * kLanes * kChains * kSteps;
}
#endif

#if defined(DW_AMX)
bool amx_allowed() {
  constexpr int kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}
void amx_prepare() {
  alignas(64) unsigned char config[64] = {1};
  for (int i = 0; i < 8; i++) config[16 + 2 * i] = 64, config[48 + i] = 16;
  _tile_loadconfig(config);
  alignas(64) static const char zeros[1024] = {};
  _tile_loadd(4, zeros, 64);
  _tile_loadd(5, zeros, 64);
  _tile_loadd(6, zeros, 64);
  _tile_loadd(7, zeros, 64);
}
double amx_work() {
  constexpr int kSteps = 4096;
  for (int s = 0; s < kSteps; s++) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  return 4.0 * 2 * 16 * 16 * 32 * kSteps;
}
#endif

// Each thread reads its own part of the buffer, from front to back, over and over.
double read_rate(int threads) {
  static char* const buffer = [] {
    void* p = nullptr;
    if (posix_memalign(&p, 2 << 20, kBufferBytes)) return static_cast<char*>(nullptr);
#if defined(__linux__)
    madvise(p, kBufferBytes, MADV_HUGEPAGE);
#endif
    std::memset(p, 1, kBufferBytes);
    return static_cast<char*>(p);
  }();
  if (!buffer) return -1;
  const int64_t part = kBufferBytes / threads / 4096 * 4096;
  constexpr int64_t kPiece = 1 << 20;
  return rate(threads, [&](int t) {
    const char* const begin = buffer + t * part;
    int64_t at = 0;
    return [=]() mutable {
      Vector s[8] = {};
      const char* p = begin + at;
      for (int64_t i = 0; i < kPiece; i += 8 * kBytes)
#pragma GCC unroll 8
        for (int c = 0; c < 8; c++) s[c] += *reinterpret_cast<const Vector*>(p + i + c * kBytes);
      for (int c = 1; c < 8; c++) s[0] += s[c];
      sink = s[0][0];
      at = at + 2 * kPiece <= part ? at + kPiece : 0;
      return double(kPiece);
    };
  });
}

double measure(const char* what, int threads) {
  if (!std::strcmp(what, "f32")) return rate(threads, [](int) { return fma_work; });
#if defined(__AVX512BF16__)
  if (!std::strcmp(what, "dot")) return rate(threads, [](int) { return dot_work; });
#endif
#if defined(DW_AMX)
  if (!std::strcmp(what, "amx") && amx_allowed())
    return rate(threads, [](int) {
      amx_prepare();
      return amx_work;
    });
#endif
  if (!std::strcmp(what, "read")) return read_rate(threads);
  return -1;
}

}  // namespace

int main() {
  std::printf("%s\n", kVectors);
  std::fflush(stdout);
  char what[16];
  int threads;
  while (std::scanf("%15s %d", what, &threads) == 2) {
    const double value = measure(what, threads < 1 ? 1 : threads);
    if (value < 0)
      std::printf("null\n");
    else
      std::printf("%.2f\n", value);
    std::fflush(stdout);
  }
}
