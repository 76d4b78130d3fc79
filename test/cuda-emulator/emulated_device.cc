// The emulated device as a plugin: cuda/plugin.cc, device.cc, queue.cc, gemm.cu and the kernels as they are, on a CUDA
// runtime and a cuBLASLt of plain loops. Each call runs on copies of its tensors that end where they end, so that a
// kernel that reads or writes beside them is found: by the words that stand around them, and with -fsanitize=address at
// once. Outputs and scratch memory hold NaN until something is written there.
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "context.h"
#include "core/plugin.h"
#include "cublaslt.h"
#include "kernels.h"

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

std::vector<std::unique_ptr<Guarded>> scratch;  // what frames of workspaces have taken

}  // namespace

namespace dw {
namespace cuda {

// ---- scratch memory: every piece by itself ----

Workspace::~Workspace() = default;
void* Workspace::take(int64_t bytes) {
  used_++;
  return scratch.emplace_back(std::make_unique<Guarded>(size_t(bytes)))->data();
}
void Workspace::rewind(std::pair<size_t, int64_t> mark) {
  for (; used_ > mark.second; used_--) {
    scratch.back()->check("a kernel wrote beside its scratch memory");
    scratch.pop_back();
  }
}

}  // namespace cuda
}  // namespace dw

// ---- the runtime ----

cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  // Few processors: grid-stride loops have more than one turn.
  *p = {"emulated device", kTotal, 9, 0, 4};
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) { return *version = kVersion, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = kVersion, cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t* available, size_t* total) { return *available = *total = kTotal, cudaSuccess; }
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "out of memory" : "no error";
}
cudaError_t cudaMalloc(void** block, size_t bytes) {
  if (bytes > kTotal || posix_memalign(block, 256, bytes) != 0) return cudaErrorMemoryAllocation;
  return cudaSuccess;
}
cudaError_t cudaFree(void* block) { return std::free(block), cudaSuccess; }
cudaError_t cudaHostAlloc(void** block, size_t bytes, unsigned) { return cudaMalloc(block, bytes); }
cudaError_t cudaFreeHost(void* block) { return cudaFree(block); }
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  if (bytes > 0) std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  if (bytes > 0) std::memset(to, value, bytes);
  return cudaSuccess;
}

// ---- the door ----

extern "C" const dw_plugin* cuda_plugin();  // cuda/plugin.cc

static int run(dw_queue* queue, int32_t op, const dw_call* call, dw_fault* fault) {
  // Fibres, shared memory and scratch memory are there once.
  static std::mutex mutex;
  std::lock_guard<std::mutex> lock(mutex);
  const int32_t count = call->in_count + call->out_count;
  std::vector<dw_tensor> tensors(call->in, call->in + call->in_count);
  tensors.insert(tensors.end(), call->out, call->out + call->out_count);
  std::vector<std::shared_ptr<Guarded>> copies(static_cast<size_t>(count));
  for (int32_t i = 0; i < count; i++) {
    dw_tensor& t = tensors[size_t(i)];
    if (!t.data) continue;
    size_t bytes = t.dtype == 1 ? 2 : 4;
    for (int32_t d = 0; d < t.rank; d++) bytes *= size_t(t.shape[d]);
    std::shared_ptr<Guarded>& copy = copies[size_t(i)];
    // A tensor that is given twice is one tensor.
    for (int32_t j = 0; j < i && j < call->in_count; j++)
      if (call->in[j].data == t.data && copies[size_t(j)]->bytes() == bytes) copy = copies[size_t(j)];
    if (!copy) {
      copy = std::make_shared<Guarded>(bytes, t.data);
      if (i < call->in_count && bytes > 0) std::memcpy(copy->data(), t.data, bytes);
    }
    t.data = copy->data();
  }
  dw_call isolated = *call;
  isolated.in = tensors.data();
  isolated.out = tensors.data() + call->in_count;
  const std::string name = dw::cuda::op_name(op);
  const int failed = cuda_plugin()->run(queue, op, &isolated, fault);
  for (int32_t i = 0; i < count; i++) {
    if (!copies[size_t(i)]) continue;
    const Guarded& copy = *copies[size_t(i)];
    copy.check((name + " wrote beside a tensor").c_str());
    const dw_tensor& given = i < call->in_count ? call->in[i] : call->out[i - call->in_count];
    if (copy.bytes() == 0 || std::memcmp(given.data, copy.data(), copy.bytes()) == 0) continue;
    if (given.frozen) emulator::fail((name + " wrote to a frozen tensor").c_str());
    std::memcpy(given.data, copy.data(), copy.bytes());
  }
  return failed;
}

extern "C" __attribute__((visibility("default"))) const dw_plugin* distilwhisper_plugin() {
  static const dw_plugin plugin = [] {
    dw_plugin p = *cuda_plugin();
    p.architectures = "emulated on the processor";
    p.run = run;
    return p;
  }();
  return &plugin;
}
