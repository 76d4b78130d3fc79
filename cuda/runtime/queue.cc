#include "runtime/queue.h"

#include <nvtx3/nvToolsExt.h>

#include <algorithm>
#include <cstring>

#include "gemm.h"
#include "kernels.h"

namespace dw {
namespace cuda {

constexpr int64_t kLanding = 8 << 20;
constexpr int64_t kStep = 8 << 20, kMostSlot = 512 << 20;  // of slots' bytes: a batch of 500 windows in one
constexpr int64_t kSmall = 64 << 10;                       // bytes up to which a second stream costs more than it hides
constexpr int64_t kHalf = 1 << 20;                         // of the ring

Queue::Queue(Device& device)
    : device_(device), clock_(device.open_clock()), spans_(device), workspace_(device), reads_(device, clock_) {
  try {
    device_.use();
    device_.check(cudaStreamCreateWithFlags(&compute_, cudaStreamNonBlocking), "opening a stream");
    device_.check(cudaStreamCreateWithFlags(&copy_, cudaStreamNonBlocking), "opening a stream");
    trap_ = static_cast<TrapRecord*>(pinned(sizeof(TrapRecord), cudaHostAllocMapped));
    std::memset(trap_, 0, sizeof(TrapRecord));
    landing_ = static_cast<char*>(pinned(kLanding, cudaHostAllocDefault));
    gemm_ = std::make_unique<GemmState>();
  } catch (...) {
    close();
    throw;
  }
}

Queue::~Queue() { close(); }

// The thread that closes may have chosen no device yet, and would be given the first one.
void Queue::close() {
  device_.enter();
  if (compute_) cudaStreamSynchronize(compute_);
  if (copy_) cudaStreamSynchronize(copy_);
  reads_.close();
  clock_->closed.store(true);
  spans_.close();
  for (Slot& s : slots_) free_slot(s);
  for (cudaEvent_t event : ring_.used)
    if (event) cudaEventDestroy(event);
  if (ring_.pinned) cudaFreeHost(ring_.pinned);
  if (landing_) cudaFreeHost(landing_);
  if (trap_) cudaFreeHost(trap_);
  if (copy_) cudaStreamDestroy(copy_);
  if (compute_) cudaStreamDestroy(compute_);
}

void Queue::free_slot(Slot& s) {
  if (s.copied) cudaEventDestroy(s.copied);
  if (s.used) cudaEventDestroy(s.used);
  if (s.pinned) cudaFreeHost(s.pinned);
  if (s.twin) device_.deallocate(s.twin);
  s = Slot();
}

void* Queue::pinned(int64_t bytes, unsigned flags) {
  void* memory = nullptr;
  device_.check(cudaHostAlloc(&memory, size_t(bytes), flags), "pinning memory of the host");
  return memory;
}

static View view_of(const dw_tensor& t) {
  View v;
  v.data = t.data;
  v.dtype = DType(t.dtype);
  v.rank = t.rank;
  std::memcpy(v.shape, t.shape, sizeof v.shape);
  v.present = t.present != 0;
  return v;
}

// A library that fails (cuBLASLt) may only be the first to meet a dead context, and does not say so: the runtime does.
template <class Body>
void Queue::launching(const char* doing, const Body& body) {
  try {
    body();
  } catch (const Error&) {
    std::string why;
    const cudaError_t error = device_.lost(&why) ? cudaSuccess : cudaStreamSynchronize(compute_);
    if (is_fatal(error)) device_.check(error, doing);
    cudaGetLastError();
    throw;
  }
}

void Queue::run(int op, const dw_call& call) {
  spans_.begin(compute_, copy_);
  launching(op_name(op), [&] { run(op, call, workspace_); });
  spans_.end(compute_);
}

Context Queue::context(int op, Workspace& workspace) {
  const cudaDeviceProp& p = device_.properties();
  return {compute_, workspace, *gemm_, Trap{trap_, op}, p.multiProcessorCount, p.major};
}

void Queue::run(int op, const dw_call& call, Workspace& workspace) {
  device_.use();
  const Launch launch = launcher(op);
  if (!launch) throw Error("ERR_CUDA", std::string(op_name(op)) + ": this plugin has no such kernel");
  call_.in.clear();
  call_.out.clear();
  for (int32_t i = 0; i < call.in_count; i++) call_.in.push_back(view_of(call.in[i]));
  for (int32_t i = 0; i < call.out_count; i++) call_.out.push_back(view_of(call.out[i]));
  call_.num.assign(call.num, call.num + call.num_count);
  Context context = this->context(op, workspace);
  clock_->begun++;
  // A range by the operation's name for Nsight Systems; without a tool it is a test of a pointer.
  nvtxRangePushA(op_name(op));
  try {
    launch(context, call_);
  } catch (...) {
    nvtxRangePop();
    clock_->launched++;
    throw;
  }
  nvtxRangePop();
  clock_->launched++;
  device_.check(cudaGetLastError(), op_name(op));
}

// While it runs it is freed behind its end.
Graph::~Graph() {
  device.enter();
  if (exec) cudaGraphExecDestroy(exec);
}

std::unique_ptr<Graph> Queue::capture(const int32_t* ops, const dw_call* calls, int32_t count) {
  constexpr const char* doing = "capturing a graph";
  auto graph = std::make_unique<Graph>(device_);
  const auto run_all = [&] {
    for (int32_t i = 0; i < count; i++) run(ops[i], calls[i], graph->workspace);
  };
  // First they run: that takes scratch memory, loads kernels and chooses algorithms, none of which a capture may do.
  spans_.begin(compute_, copy_);
  launching(doing, run_all);
  spans_.end(compute_);
  graph->workspace.fix();
  cudaGraph_t captured = nullptr;
  launching(doing, [&] {
    std::lock_guard<std::mutex> lock(device_.capturing());
    device_.check(cudaStreamBeginCapture(compute_, cudaStreamCaptureModeThreadLocal), doing);
    try {
      run_all();
    } catch (...) {
      cudaStreamEndCapture(compute_, &captured);
      cudaGetLastError();
      if (captured) cudaGraphDestroy(captured);
      throw;
    }
    device_.check(cudaStreamEndCapture(compute_, &captured), doing);
  });
  const cudaError_t made = cudaGraphInstantiate(&graph->exec, captured, 0);
  cudaGraphDestroy(captured);
  device_.check(made, doing);
  return graph;
}

void Queue::launch(const Graph& graph) {
  device_.use();
  spans_.begin(compute_, copy_);
  clock_->begun++;
  nvtxRangePushA("graph");
  const cudaError_t error = cudaGraphLaunch(graph.exec, compute_);
  nvtxRangePop();
  clock_->launched++;
  device_.check(error, "launching a graph");
  spans_.end(compute_);
}

// The next slot of two, with room for `bytes`: one takes a batch while the kernels of the last one may still wait for
// the other's.
Queue::Slot& Queue::next_slot(int64_t bytes) {
  Slot& s = slots_[slot_++ % slots_.size()];
  if (s.used) device_.check(cudaEventSynchronize(s.used), "copying to the device");
  if (s.bytes >= bytes) return s;
  free_slot(s);
  bytes = (bytes + kStep - 1) / kStep * kStep;
  try {
    s.pinned = static_cast<char*>(pinned(bytes, cudaHostAllocDefault));
    s.twin = static_cast<char*>(device_.allocate(bytes));
    device_.check(cudaEventCreateWithFlags(&s.copied, cudaEventDisableTiming), "opening an event");
    device_.check(cudaEventCreateWithFlags(&s.used, cudaEventDisableTiming), "opening an event");
  } catch (...) {
    free_slot(s);
    throw;
  }
  s.bytes = bytes;
  return s;
}

// Where a small upload lies until it is copied: the ring's halves take turns, and a half is waited for when its turn
// comes again.
char* Queue::ring_place(int64_t bytes) {
  constexpr const char* doing = "copying to the device";
  if (!ring_.pinned) ring_.pinned = static_cast<char*>(pinned(2 * kHalf, cudaHostAllocDefault));
  if (ring_.at + bytes > kHalf) {
    cudaEvent_t& left = ring_.used[ring_.half];
    if (!left) device_.check(cudaEventCreateWithFlags(&left, cudaEventDisableTiming), "opening an event");
    device_.check(cudaEventRecord(left, compute_), doing);
    ring_.half ^= 1, ring_.at = 0;
    if (ring_.used[ring_.half]) device_.check(cudaEventSynchronize(ring_.used[ring_.half]), doing);
  }
  char* place = ring_.pinned + ring_.half * kHalf + ring_.at;
  ring_.at += (bytes + 63) / 64 * 64;
  return place;
}

void Queue::upload(void* to, const void* from, int64_t bytes) {
  constexpr const char* doing = "copying to the device";
  device_.use();
  spans_.begin(compute_, copy_);
  clock_->begun++;
  clock_->launched++;
  const auto copy = [&](void* target, const void* source, size_t part, cudaMemcpyKind kind, cudaStream_t stream) {
    device_.check(cudaMemcpyAsync(target, source, part, kind, stream), doing);
  };
  if (bytes <= kSmall && bytes > 0) {
    char* place = ring_place(bytes);
    std::memcpy(place, from, size_t(bytes));
    copy(to, place, size_t(bytes), cudaMemcpyHostToDevice, compute_);
  }
  for (int64_t at = 0; bytes > kSmall && at < bytes; at += kMostSlot) {
    const size_t part = size_t(std::min(kMostSlot, bytes - at));
    Slot& s = next_slot(int64_t(part));
    std::memcpy(s.pinned, static_cast<const char*>(from) + at, part);
    copy(s.twin, s.pinned, part, cudaMemcpyHostToDevice, copy_);
    device_.check(cudaEventRecord(s.copied, copy_), doing);
    device_.check(cudaStreamWaitEvent(compute_, s.copied, 0), doing);
    copy(static_cast<char*>(to) + at, s.twin, part, cudaMemcpyDeviceToDevice, compute_);
    device_.check(cudaEventRecord(s.used, compute_), doing);
  }
  spans_.end(compute_);
}

void Queue::synchronize() {
  device_.use();
  const uint64_t begun = clock_->begun.load();
  device_.check(cudaStreamSynchronize(compute_), "waiting for kernels");
  if (clock_->done.load() < begun) clock_->done.store(begun);
  spans_.collect();
  throw_trap(*trap_);
}

void Queue::read(void* to, const void* from, int64_t bytes, dw_done done, void* note) {
  if (bytes > Reads::kMostBytes || reads_.full()) {
    download(to, from, bytes);
    return done(note, nullptr);
  }
  device_.use();
  spans_.begin(compute_, copy_);
  Context context = this->context(0, workspace_);
  reads_.begin(context, from, bytes);
  spans_.end(compute_);
  reads_.promise(to, bytes, done, note);
}

void Queue::download(void* to, const void* from, int64_t bytes) {
  constexpr const char* doing = "copying from the device";
  device_.use();
  spans_.begin(compute_, copy_);
  for (int64_t at = 0; at < bytes; at += kLanding) {
    const size_t part = size_t(std::min(kLanding, bytes - at));
    device_.check(
        cudaMemcpyAsync(landing_, static_cast<const char*>(from) + at, part, cudaMemcpyDeviceToHost, compute_), doing);
    if (at + kLanding >= bytes) spans_.end(compute_);
    synchronize();
    std::memcpy(static_cast<char*>(to) + at, landing_, part);
  }
  if (bytes == 0) synchronize();
}

}  // namespace cuda
}  // namespace dw
