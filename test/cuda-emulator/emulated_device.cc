// The emulated device as a plugin: cuda/runtime/plugin.cc, device.cc, queue.cc, gemm.cu and the kernels as they are, on a CUDA
// runtime and a cuBLASLt of plain loops. Each call runs on copies of its tensors that end where they end, so that a
// kernel that reads or writes beside them is found: by the words that stand around them, and with -fsanitize=address at
// once; a graph is captured on copies that stay, and they have its tensors' values of that time when it is launched.
// Outputs and scratch memory hold NaN until something is written there.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/plugin.h"
#include "kernels.h"
#include "runtime/context.h"
#include "runtime/cublaslt.h"

namespace {

constexpr int kVersion = 13000;
constexpr size_t kTotal = size_t(4) << 30;

// ---- memory with a guard ----

#ifdef __SANITIZE_ADDRESS__
constexpr size_t kGuard = 0;
#else
constexpr size_t kGuard = 64;
#endif
constexpr unsigned char kGuardByte = 0xa5;

// `bytes` at an address that is aligned like `like` up to 256 bytes. They hold NaN.
class Guarded {
 public:
  Guarded(size_t bytes, const void* like = nullptr) : bytes_(bytes) {
    const size_t lead = (kGuard ? 256 : 0) + reinterpret_cast<uintptr_t>(like) % 256;
    void* base = nullptr;
    if (posix_memalign(&base, 256, lead + bytes + kGuard) != 0) std::abort();
    base_ = static_cast<unsigned char*>(base);
    data_ = base_ + lead;
    std::memset(data_ - kGuard, kGuardByte, kGuard);
    std::memset(data_ + bytes, kGuardByte, kGuard);
    std::memset(data_, 0xff, bytes);
  }
  ~Guarded() { std::free(base_); }
  Guarded(const Guarded&) = delete;
  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  void check(const char* what) const {
    for (size_t i = 0; i < kGuard; i++)
      if (data_[-1 - ptrdiff_t(i)] != kGuardByte || data_[bytes_ + i] != kGuardByte) emulator::fail(what);
  }

 private:
  const size_t bytes_;
  unsigned char *base_ = nullptr, *data_;
};

std::vector<std::unique_ptr<Guarded>> scratch;                               // what frames of workspaces have taken
std::map<const void*, std::vector<std::unique_ptr<Guarded>>> graph_scratch;  // what captures took, by workspace

// ---- streams that capture, and what has been put on all of them ----

struct Stream {
  std::atomic<struct EmulatedGraph*> graph{nullptr};
  uint64_t recorded = 0;            // events
  std::atomic<uint64_t> waited{0};  // those of them that were waited for
};
thread_local Stream* captures = nullptr;  // the stream that this thread captures
thread_local bool broken = false;         // something was asked that may not be captured
thread_local bool launching = false;
std::atomic<int> open_captures{0};
struct Counts {
  std::atomic<long> kernels{0}, products{0}, copies{0}, captures{0}, graphs{0};
  std::atomic<long> events{0}, most_events{0}, events_made{0};  // that can be timed: now, at a time, in all
} counts;                                                       // each by the host: not what a graph brings along

// What may not be done by a thread that captures, or by any while one does, spoils the capture.
cudaError_t allowed(bool everywhere = false) {
  if (captures) broken = true;
  return captures || (everywhere && open_captures > 0) ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}

}  // namespace

struct EmulatedGraph {
  std::vector<std::function<void()>> nodes;
};

namespace emulator {

bool capturing() { return captures != nullptr; }
bool fails(const char* call) {
  const char* named = std::getenv("DW_EMULATOR_FAIL");
  return named && std::strcmp(named, call) == 0;
}
void put(void* stream, Work what, std::function<void()> work) {
  if (auto* graph = static_cast<Stream*>(stream)->graph.load()) return graph->nodes.push_back(std::move(work));
  if (!launching) (what == Work::kernel ? counts.kernels : what == Work::product ? counts.products : counts.copies)++;
  work();
}

}  // namespace emulator

namespace dw {
namespace cuda {

// ---- scratch memory: every piece by itself ----

Workspace::~Workspace() {
  if (fixed_) graph_scratch.erase(this);
}
void* Workspace::take(int64_t bytes) {
  if (emulator::capturing() && !fixed_) emulator::fail("a graph takes scratch memory that it does not own");
  used_++;
  return scratch.emplace_back(std::make_unique<Guarded>(size_t(bytes)))->data();
}
void Workspace::rewind(std::pair<size_t, int64_t> mark) {
  for (; used_ > mark.second; used_--) {
    scratch.back()->check("a kernel wrote beside its scratch memory");
    // A graph will write there again.
    if (emulator::capturing()) graph_scratch[this].push_back(std::move(scratch.back()));
    scratch.pop_back();
  }
}

}  // namespace cuda
}  // namespace dw

// ---- the runtime ----

cudaError_t cudaGetDeviceCount(int* count) {
  const bool old = emulator::fails("old driver"), none = emulator::fails("no driver"),
             hidden = emulator::fails("no GPU");
  *count = old || none || hidden ? 0 : 1;
  return old || none ? cudaErrorInsufficientDriver : hidden ? cudaErrorNoDevice : cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  // Few processors: grid-stride loops have more than one turn.
  *p = {"emulated device", kTotal, 9, 0, 4};
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = emulator::fails("no driver") ? 0 : emulator::fails("old driver") ? 11080 : kVersion;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = kVersion, cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t* available, size_t* total) { return *available = *total = kTotal, cudaSuccess; }
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation           ? "out of memory"
         : error == cudaErrorStreamCaptureUnsupported ? "operation not permitted when stream is capturing"
         : error == cudaErrorStreamCaptureInvalidated ? "operation failed due to a previous error during capture"
         : error == cudaErrorInvalidResourceHandle    ? "invalid resource handle"
         : error == cudaErrorNotReady                 ? "device not ready"
         : error == cudaErrorIllegalAddress           ? "an illegal memory access was encountered"
         : error == cudaErrorUnknown                  ? "unknown error"
                                                      : "no error";
}
cudaError_t cudaMalloc(void** block, size_t bytes) {
  if (allowed() != cudaSuccess) return cudaErrorStreamCaptureUnsupported;
  if (bytes > kTotal || posix_memalign(block, 256, bytes) != 0) return cudaErrorMemoryAllocation;
  return cudaSuccess;
}
cudaError_t cudaFree(void* block) { return std::free(block), cudaSuccess; }
cudaError_t cudaHostAlloc(void** block, size_t bytes, unsigned) { return cudaMalloc(block, bytes); }
cudaError_t cudaFreeHost(void* block) { return cudaFree(block); }
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  emulator::put(stream, emulator::Work::copy, [=] {
    if (bytes > 0) std::memcpy(to, from, bytes);
  });
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  emulator::put(stream, emulator::Work::copy, [=] {
    if (bytes > 0) std::memset(to, value, bytes);
  });
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) { return *stream = new Stream, cudaSuccess; }
cudaError_t cudaStreamDestroy(cudaStream_t stream) { return delete static_cast<Stream*>(stream), cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (emulator::fails("context")) return cudaErrorIllegalAddress;
  auto* s = static_cast<Stream*>(stream);
  s->waited = s->recorded;
  return s->graph.load() ? allowed() : cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() { return allowed(true); }

// ---- events ----

// The device's work is over when it is queued. When it ran is told all the same only of events that were waited for, or
// of those before them on their stream, as where a device works behind the host. Its clock is not the host's: it began
// at another moment, and gains a millisecond in a second.
struct EmulatedEvent {
  const bool timed;
  Stream* stream = nullptr;
  uint64_t at = 0;  // of the events of its stream
  double ms = 0;
};

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  const bool timed = !(flags & cudaEventDisableTiming);
  if (timed && emulator::fails("cudaEventCreateWithFlags")) return cudaErrorMemoryAllocation;
  *event = new EmulatedEvent{timed};
  if (!timed) return cudaSuccess;
  counts.events_made++;
  const long now = ++counts.events;
  for (long most = counts.most_events; now > most && !counts.most_events.compare_exchange_weak(most, now);) {
  }
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  if (event->timed) counts.events--;
  return delete event, cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  auto* s = static_cast<Stream*>(stream);
  if (s->graph.load()) return allowed();
  const auto host = std::chrono::steady_clock::now().time_since_epoch();
  event->stream = s;
  event->at = ++s->recorded;
  event->ms = 1e7 + 1.001 * std::chrono::duration<double, std::milli>(host).count();
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (event->stream) event->stream->waited = std::max(event->stream->waited.load(), event->at);
  return allowed();
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t from, cudaEvent_t to) {
  for (const EmulatedEvent* event : {from, to}) {
    if (!event->timed || !event->stream) return cudaErrorInvalidResourceHandle;
    if (event->at > event->stream->waited) return cudaErrorNotReady;
  }
  return *ms = float(to->ms - from->ms), cudaSuccess;
}

// ---- graphs ----

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  if (mode != cudaStreamCaptureModeThreadLocal) emulator::fail("a capture that forbids other threads to allocate");
  if (captures || emulator::fails("cudaStreamBeginCapture")) return cudaErrorStreamCaptureUnsupported;
  captures = static_cast<Stream*>(stream);
  captures->graph = new EmulatedGraph;
  broken = emulator::fails("capture");
  open_captures++;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  if (captures != stream) emulator::fail("a capture that this thread has not begun");
  *graph = captures->graph.exchange(nullptr);
  captures = nullptr;
  open_captures--;
  if (!broken) return cudaSuccess;
  cudaGraphDestroy(*graph);
  return *graph = nullptr, cudaErrorStreamCaptureInvalidated;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  if (emulator::fails("cudaGraphInstantiate")) return cudaErrorMemoryAllocation;
  counts.captures++;
  return *exec = new EmulatedGraph(*graph), cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t) {
  if (emulator::fails("cudaGraphLaunch")) return cudaErrorStreamCaptureUnsupported;
  counts.graphs++;
  launching = true;
  for (const auto& node : exec->nodes) node();
  launching = false;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) { return delete exec, cudaSuccess; }

// ---- the door ----

extern "C" const dw_plugin* cuda_plugin();  // cuda/runtime/plugin.cc

// The tensors of calls as copies.
class Isolated {
 public:
  explicit Isolated(const dw_call* calls, int32_t count) {
    for (int32_t c = 0; c < count; c++)
      for (int32_t i = 0; i < calls[c].in_count + calls[c].out_count; i++) {
        const bool out = i >= calls[c].in_count;
        dw_tensor t = out ? calls[c].out[i - calls[c].in_count] : calls[c].in[i];
        if (t.data) t.data = copy_of(t, out);
        tensors_.push_back(t);
      }
    const dw_tensor* next = tensors_.data();
    for (int32_t c = 0; c < count; c++) {
      calls_.push_back(calls[c]);
      calls_[size_t(c)].in = next;
      calls_[size_t(c)].out = next + calls[c].in_count;
      next += calls[c].in_count + calls[c].out_count;
    }
  }
  const dw_call* calls() const { return calls_.data(); }
  // Before a graph runs again.
  void copy_in() {
    for (Copy& c : copies_)
      if (c.made)
        std::memset(c.copy->data(), 0xff, c.copy->bytes());
      else
        std::memcpy(c.copy->data(), c.given.data, c.copy->bytes());
  }
  void copy_out(const std::string& name) {
    for (Copy& c : copies_) {
      c.copy->check((name + " wrote beside a tensor").c_str());
      if (c.copy->bytes() == 0 || std::memcmp(c.given.data, c.copy->data(), c.copy->bytes()) == 0) continue;
      if (c.given.frozen) emulator::fail((name + " wrote to a frozen tensor").c_str());
      std::memcpy(c.given.data, c.copy->data(), c.copy->bytes());
    }
  }

 private:
  struct Copy {
    dw_tensor given;
    bool made;  // by one of the calls: it holds NaN before
    std::unique_ptr<Guarded> copy;
  };
  void* copy_of(const dw_tensor& t, bool out) {
    size_t bytes = t.dtype == 1 ? 2 : 4;
    for (int32_t d = 0; d < t.rank; d++) bytes *= size_t(t.shape[d]);
    // A tensor that is given twice is one tensor.
    for (Copy& c : copies_)
      if (c.given.data == t.data && c.copy->bytes() == bytes) return c.copy->data();
    copies_.push_back({t, out, std::make_unique<Guarded>(bytes, t.data)});
    void* copy = copies_.back().copy->data();
    if (!out && bytes > 0) std::memcpy(copy, t.data, bytes);
    return copy;
  }
  std::vector<Copy> copies_;
  std::vector<dw_tensor> tensors_;
  std::vector<dw_call> calls_;
};

static std::mutex alone;  // fibres, shared memory and scratch memory are there once

static int run(dw_queue* queue, int32_t op, const dw_call* call, dw_fault* fault) {
  std::lock_guard<std::mutex> lock(alone);
  Isolated isolated(call, 1);
  const int failed = cuda_plugin()->run(queue, op, isolated.calls(), fault);
  isolated.copy_out(dw::cuda::op_name(op));
  return failed;
}

static int read(dw_queue* queue, void* to, const void* from, int64_t bytes, dw_done done, void* note, dw_fault* fault) {
  std::lock_guard<std::mutex> lock(alone);
  return cuda_plugin()->read(queue, to, from, bytes, done, note, fault);
}

// A graph on copies of its tensors: they get the tensors' values before a launch, and the tensors theirs behind it.
struct IsolatedGraph {
  Isolated tensors;
  dw_graph* graph;
};

static int capture(dw_queue* queue, const int32_t* ops, const dw_call* calls, int32_t count, dw_graph** graph,
                   dw_fault* fault) {
  std::lock_guard<std::mutex> lock(alone);
  auto made = std::make_unique<IsolatedGraph>(IsolatedGraph{Isolated(calls, count), nullptr});
  const int failed = cuda_plugin()->capture(queue, ops, made->tensors.calls(), count, &made->graph, fault);
  if (emulator::capturing()) emulator::fail("a capture was not ended");
  made->tensors.copy_out("a capture");
  if (!failed) *graph = reinterpret_cast<dw_graph*>(made.release());
  return failed;
}
static int launch(dw_queue* queue, dw_graph* graph, dw_fault* fault) {
  std::lock_guard<std::mutex> lock(alone);
  auto* isolated = reinterpret_cast<IsolatedGraph*>(graph);
  isolated->tensors.copy_in();
  for (auto& pieces : graph_scratch)
    for (auto& piece : pieces.second) std::memset(piece->data(), 0xff, piece->bytes());
  const int failed = cuda_plugin()->launch(queue, isolated->graph, fault);
  for (auto& pieces : graph_scratch)
    for (auto& piece : pieces.second) piece->check("a kernel of a graph wrote beside its scratch memory");
  isolated->tensors.copy_out("a graph");
  return failed;
}
static void graph_close(dw_graph* graph) {
  std::lock_guard<std::mutex> lock(alone);
  auto* isolated = reinterpret_cast<IsolatedGraph*>(graph);
  cuda_plugin()->graph_close(isolated->graph);
  delete isolated;
}

// Instead of cuBLASLt's path it says what the host has put on streams so far, for tests that count.
static void report(dw_report* r) {
  cuda_plugin()->report(r);
  if (r->gemm_version == 0) return;
  std::snprintf(
      r->gemm_library, sizeof r->gemm_library,
      "emulated: %ld kernels, %ld products, %ld copies, %ld captures, %ld graphs, %ld events, %ld at most, %ld made",
      counts.kernels.load(), counts.products.load(), counts.copies.load(), counts.captures.load(), counts.graphs.load(),
      counts.events.load(), counts.most_events.load(), counts.events_made.load());
}

extern "C" __attribute__((visibility("default"))) const dw_plugin* distilwhisper_plugin() {
  static const dw_plugin plugin = [] {
    dw_plugin p = *cuda_plugin();
    p.architectures = "emulated on the processor";
    p.report = report;
    p.run = run;
    p.capture = capture;
    p.launch = launch;
    p.graph_close = graph_close;
    p.read = read;
    return p;
  }();
  return &plugin;
}
