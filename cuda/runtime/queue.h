// Calls in order on a stream of the GPU, behind the thread that makes them.
#pragma once
#include <array>

#include "core/call.h"
#include "core/plugin.h"
#include "runtime/context.h"
#include "runtime/device.h"
#include "runtime/reads.h"
#include "runtime/spans.h"

namespace dw {
namespace cuda {

// Calls that a queue has captured. Their scratch memory is the graph's own: no other call takes it, and it stays where
// it is. The tensors are kept by who asked for the graph.
struct Graph {
  explicit Graph(Device& d) : device(d), workspace(d) {}
  ~Graph();
  const Device& device;
  Workspace workspace;
  cudaGraphExec_t exec = nullptr;
};

class Queue {
 public:
  explicit Queue(Device& device);
  ~Queue();
  Queue(const Queue&) = delete;

  void run(int op, const dw_call& call);
  // Runs the calls, and captures them. `launch` then runs them again, on the same tensors.
  std::unique_ptr<Graph> capture(const int32_t* ops, const dw_call* calls, int32_t count);
  void launch(const Graph& graph);
  void upload(void* to, const void* from, int64_t bytes);
  void download(void* to, const void* from, int64_t bytes);
  // Returns at once for a few bytes.
  void read(void* to, const void* from, int64_t bytes, dw_done done, void* note);
  void synchronize();
  Spans& spans() { return spans_; }

 private:
  template <class Body>
  void launching(const char* doing, const Body& body);
  void run(int op, const dw_call& call, Workspace& workspace);
  Context context(int op, Workspace& workspace);
  // Pinned memory of the host and its twin on the device. A large upload goes host → pinned → twin on the copy stream,
  // while kernels of earlier calls still run, and twin → tensor in the order of the calls: the tensor's memory may be
  // in use until then. A small one goes pinned → tensor, by way of a ring.
  struct Slot {
    int64_t bytes = 0;
    char* pinned = nullptr;
    char* twin = nullptr;
    cudaEvent_t copied = nullptr;  // host → twin
    cudaEvent_t used = nullptr;    // twin → tensor: the slot is free again
  };
  struct Ring {
    char* pinned = nullptr;
    int half = 0;
    int64_t at = 0;            // of the half
    cudaEvent_t used[2] = {};  // the half's uploads are done
  };
  Slot& next_slot(int64_t bytes);
  char* ring_place(int64_t bytes);
  void free_slot(Slot& slot);
  void close();
  void* pinned(int64_t bytes, unsigned flags);

  Device& device_;
  const std::shared_ptr<Clock> clock_;
  cudaStream_t compute_ = nullptr, copy_ = nullptr;
  std::array<Slot, 2> slots_;
  size_t slot_ = 0;
  Ring ring_;
  char* landing_ = nullptr;  // pinned: where downloads arrive
  TrapRecord* trap_ = nullptr;
  Spans spans_;
  Workspace workspace_;
  std::unique_ptr<GemmState> gemm_;
  Reads reads_;
  Call call_;
};

}  // namespace cuda
}  // namespace dw
