// What a kernel of the processor works with.
#pragma once
#include <atomic>
#include <cstdint>
#include <utility>
#include <vector>

#include "core/call.h"
#include "core/pool.h"

namespace dw {

// Scratch memory of a stream's worker: a stack that only grows. A Frame gives back what was taken through it.
class Workspace {
 public:
  ~Workspace();
  // Any thread. Bytes that it holds.
  int64_t bytes() const { return bytes_; }
  class Frame {
   public:
    explicit Frame(Workspace& w) : workspace_(w), mark_(w.mark()) {}
    ~Frame() { workspace_.rewind(mark_); }
    Frame(const Frame&) = delete;
    // Uninitialised, 64-byte aligned. Call it from the worker, not from inside a parallel body.
    template <class T>
    T* take(int64_t count) {
      return static_cast<T*>(workspace_.take(count, int64_t(sizeof(T))));
    }

   private:
    Workspace& workspace_;
    std::pair<size_t, int64_t> mark_;
  };

 private:
  std::pair<size_t, int64_t> mark() const { return {chunk_, used_}; }
  void rewind(std::pair<size_t, int64_t> m);
  void* take(int64_t count, int64_t each);
  struct Chunk {
    explicit Chunk(int64_t size);
    void free();
    char* base;
    int64_t bytes;
  };
  std::vector<Chunk> chunks_;
  size_t chunk_ = 0;
  std::atomic<int64_t> bytes_{0};
  int64_t used_ = 0;
  int64_t joined_ = 0;  // what chunks that were given back had together
};

struct Context {
  ThreadPool& pool;
  Workspace& workspace;
  int threads() const { return pool.threads(); }
};

using RunFn = void (*)(Context&, const Call&);

}  // namespace dw
