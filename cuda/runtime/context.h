// What a kernel's launcher gets besides its call. A launcher puts kernels on `stream` and returns; it never waits.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "runtime/trap.h"

namespace dw {
namespace cuda {

class Device;
class GemmState;

// Grids and splits of a call with a `position` change at multiples of this only: within one a replayed call, which has
// the grid of the last position, gives the same bits as a call at the position itself.
constexpr int kGraphSpan = 128;

// Scratch memory of a queue on the device: a stack that only grows. What a Frame took may be taken again by the next
// call at once, because a queue's kernels run in order.
class Workspace {
 public:
  explicit Workspace(Device& device) : device_(device) {}
  Workspace(const Workspace&) = delete;
  ~Workspace();
  class Frame {
   public:
    explicit Frame(Workspace& w) : workspace_(w), mark_(w.chunk_, w.used_) {}
    ~Frame() { workspace_.rewind(mark_); }
    Frame(const Frame&) = delete;
    // Uninitialised, 256-byte aligned device memory. Throws Error(ERR_OUT_OF_MEMORY).
    template <class T>
    T* take(int64_t count) {
      return static_cast<T*>(workspace_.take(count * int64_t(sizeof(T))));
    }

   private:
    Workspace& workspace_;
    const std::pair<size_t, int64_t> mark_;
  };

  // From here on it keeps the memory that it has, and takes no more: a graph knows it by its addresses.
  void fix() { fixed_ = true; }

 private:
  void* take(int64_t bytes);
  void rewind(std::pair<size_t, int64_t> mark);
  struct Chunk {
    char* base;
    int64_t bytes;
  };
  Device& device_;
  std::vector<Chunk> chunks_;
  size_t chunk_ = 0;
  int64_t used_ = 0;
  bool fixed_ = false;
};

struct Context {
  cudaStream_t stream;
  Workspace& workspace;
  GemmState& gemm;  // see gemm.h
  Trap trap;        // for kernels that check data: pass it by value
  int processors;   // streaming multiprocessors of the device
  int major;        // its compute capability, 9 for Hopper
};

}  // namespace cuda
}  // namespace dw
