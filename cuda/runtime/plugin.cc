// The plugin's door: the table of native/core/plugin.h. No exception passes it.
#include "core/plugin.h"

#include <cstdio>
#include <cstring>
#include <new>

#include "kernels.h"
#include "runtime/cublaslt.h"
#include "runtime/device.h"
#include "runtime/queue.h"

struct dw_device {
  dw::cuda::Device device;
};
struct dw_queue {
  dw::cuda::Queue queue;
};
struct dw_graph {
  std::unique_ptr<dw::cuda::Graph> graph;
};

namespace dw {
namespace cuda {
namespace {

void put(char* to, size_t size, const std::string& text) { std::snprintf(to, size, "%s", text.c_str()); }

int fail(dw_fault* fault, const char* code, const std::string& message) {
  put(fault->code, sizeof fault->code, code);
  put(fault->message, sizeof fault->message, message);
  return 1;
}

template <class Body>
int guard(dw_fault* fault, const Body& body) {
  try {
    body();
    return 0;
  } catch (const Error& e) {
    return fail(fault, e.code, e.what());
  } catch (const std::bad_alloc&) {
    return fail(fault, "ERR_OUT_OF_MEMORY", "memory of the host is full");
  } catch (const std::exception& e) {
    return fail(fault, "ERR_KERNEL", e.what());
  }
}

void report(dw_report* r) {
  std::memset(r, 0, sizeof *r);
  int count = 0;
  put(r->driver_message, sizeof r->driver_message, driver_problem(&count));
  cudaDriverGetVersion(&r->driver_version);
  cudaRuntimeGetVersion(&r->runtime_version);
  const CublasLt* gemm = cublaslt();
  if (gemm) r->gemm_version = int32_t(gemm->version);
  put(r->gemm_library, sizeof r->gemm_library, gemm ? gemm->path : cublaslt_problem());
}

int device_count(int32_t* count, dw_fault* fault) {
  return guard(fault, [&] {
    const std::string problem = driver_problem(count);
    if (!problem.empty()) throw Error("ERR_CUDA", problem);
  });
}

int device_describe(int32_t index, dw_device_info* info, dw_fault* fault) {
  return guard(fault, [&] {
    cudaDeviceProp p;
    const cudaError_t error = cudaGetDeviceProperties(&p, index);
    cudaGetLastError();
    if (error != cudaSuccess)
      throw Error("ERR_CUDA", "cuda:" + std::to_string(index) + ": " + cudaGetErrorString(error));
    put(info->name, sizeof info->name, p.name);
    info->major = p.major;
    info->minor = p.minor;
    info->processors = p.multiProcessorCount;
    info->usable = usable(p);
    info->memory_bytes = int64_t(p.totalGlobalMem);
  });
}

int device_open(int32_t index, dw_device** device, dw_fault* fault) {
  return guard(fault, [&] { *device = new dw_device{Device(index)}; });
}
void device_close(dw_device* device) { delete device; }
int device_lost(const dw_device* device, dw_fault* reason) {
  std::string why;
  return device->device.lost(&why) ? fail(reason, "ERR_CUDA", why) : 0;
}
int device_memory(dw_device* device, dw_memory_info* info, dw_fault* fault) {
  return guard(fault, [&] { *info = device->device.memory(); });
}
int allocate(dw_device* device, int64_t bytes, void** block, dw_fault* fault) {
  return guard(fault, [&] { *block = device->device.allocate(bytes); });
}
void deallocate(dw_device* device, void* block) { device->device.deallocate(block); }
int write(dw_device* device, void* to, const void* from, int64_t bytes, dw_fault* fault) {
  return guard(fault, [&] { device->device.write(to, from, bytes); });
}

int queue_open(dw_device* device, dw_queue** queue, dw_fault* fault) {
  return guard(fault, [&] { *queue = new dw_queue{Queue(device->device)}; });
}
void queue_close(dw_queue* queue) { delete queue; }
int run(dw_queue* queue, int32_t op, const dw_call* call, dw_fault* fault) {
  return guard(fault, [&] { queue->queue.run(op, *call); });
}
int upload(dw_queue* queue, void* to, const void* from, int64_t bytes, dw_fault* fault) {
  return guard(fault, [&] { queue->queue.upload(to, from, bytes); });
}
int download(dw_queue* queue, void* to, const void* from, int64_t bytes, dw_fault* fault) {
  return guard(fault, [&] { queue->queue.download(to, from, bytes); });
}
int read(dw_queue* queue, void* to, const void* from, int64_t bytes, dw_done done, void* note, dw_fault* fault) {
  return guard(fault, [&] { queue->queue.read(to, from, bytes, done, note); });
}
int synchronize(dw_queue* queue, dw_fault* fault) {
  return guard(fault, [&] { queue->queue.synchronize(); });
}
void time_next(dw_queue* queue, dw_ran ran, void* to, const void* note) { queue->queue.spans().next(ran, to, note); }
void end_times(dw_queue* queue) { queue->queue.spans().clear(); }
int capture(dw_queue* queue, const int32_t* ops, const dw_call* calls, int32_t count, dw_graph** graph,
            dw_fault* fault) {
  return guard(fault, [&] { *graph = new dw_graph{queue->queue.capture(ops, calls, count)}; });
}
int launch(dw_queue* queue, dw_graph* graph, dw_fault* fault) {
  return guard(fault, [&] { queue->queue.launch(*graph->graph); });
}
void graph_close(dw_graph* graph) { delete graph; }

}  // namespace
}  // namespace cuda
}  // namespace dw

extern "C" __attribute__((visibility("default"))) const dw_plugin* distilwhisper_plugin() {
  using namespace dw::cuda;
  static const dw_plugin plugin = {DW_PLUGIN_ABI,
                                   uint32_t(op_count()),
                                   op_names(),
                                   op_present(),
                                   "compute capability 8.0 and later (sm_80, sm_90a, PTX)",
                                   report,
                                   device_count,
                                   device_describe,
                                   device_open,
                                   device_close,
                                   device_lost,
                                   device_memory,
                                   allocate,
                                   deallocate,
                                   write,
                                   queue_open,
                                   queue_close,
                                   run,
                                   upload,
                                   download,
                                   synchronize,
                                   time_next,
                                   end_times,
                                   capture,
                                   launch,
                                   graph_close,
                                   kGraphSpan,
                                   read};
  return &plugin;
}
