// The operations and their calls. An operation is one line in ops.h and three functions of the same name:
//   ops::x          checks the arguments of a call and states its outputs (JavaScript thread)
//   reference::x    the plain-loop oracle in double
//   cpu::<isa>::x   the fast kernel, compiled once for each instruction set
// A device's kernel is cuda::x, in the plugin (cuda/kernels.h).
#pragma once
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "core/call.h"
#include "core/error.h"
#include "core/pool.h"

namespace dw {

// Scratch memory of a stream's worker: a stack that only grows. A Frame gives back what was taken through it.
class Workspace {
 public:
  ~Workspace();
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
  int64_t used_ = 0;
  int64_t joined_ = 0;  // what chunks that were given back had together
};

struct Context {
  ThreadPool& pool;
  Workspace& workspace;
  int threads() const { return pool.threads(); }
};

using RunFn = void (*)(Context&, const Call&);

enum Types : unsigned {
  kF32 = 1,
  kBf16 = 2,
  kI32 = 4,
  kF64 = 8,
  kQ8 = 16,
  kFloat = kF32 | kBf16 | kF64,
  kWeight = kFloat | kQ8
};
constexpr int64_t kAny = -1;  // any extent

// Reads a call's arguments in order, refuses what does not fit, and states the outputs.
class Prepare {
 public:
  Prepare(const char* op, Call& call, std::vector<uint8_t> writable)
      : op_(op), call_(call), writable_(std::move(writable)) {}

  // The next tensor. `shape` (kAny = free) is checked when given; without it any shape passes.
  const View& tensor(const char* name, unsigned types) { return next(name, types, nullptr, 0, false, false); }
  const View& tensor(const char* name, unsigned types, std::initializer_list<int64_t> shape) {
    return next(name, types, shape.begin(), int(shape.size()), false, false);
  }
  // The next tensor, which may be null: test it with `if (view)`.
  const View& optional(const char* name, unsigned types, std::initializer_list<int64_t> shape) {
    return next(name, types, shape.begin(), int(shape.size()), true, false);
  }
  const View& optional(const char* name, unsigned types) { return next(name, types, nullptr, 0, true, false); }
  // A tensor that the kernel writes in place: it must not be frozen.
  const View& inout(const char* name, unsigned types) { return next(name, types, nullptr, 0, false, true); }
  const View& inout(const char* name, unsigned types, std::initializer_list<int64_t> shape, bool optional = false) {
    return next(name, types, shape.begin(), int(shape.size()), optional, true);
  }
  // The same for any shape, and a tensor of the shape of another.
  const View& like(const char* name, unsigned types, const View& shape, bool optional, bool write) {
    return next(name, types, shape.shape, shape.rank, optional, write);
  }
  bool more_tensors() const { return tensor_ < call_.in.size(); }
  double number(const char* name, double low, double high);
  int64_t integer(const char* name, int64_t low, int64_t high) { return int64_t(whole(name, low, high)); }
  bool flag(const char* name) { return integer(name, 0, 1) != 0; }
  // A float type of an output or of the products, given as its number.
  DType dtype(const char* name);

  void require(bool ok, const char* argument, const std::string& expected, const std::string& got) const;
  [[noreturn]] void fail(const char* code, const char* argument, const std::string& expected,
                         const std::string& got) const;

  void output(DType dtype, std::initializer_list<int64_t> shape);
  void output_like(const View& v, DType dtype);
  // The most scratch memory that a kernel takes for rows × columns which no tensor of the call has: ERR_SHAPE where
  // that is no number of bytes.
  void scratch(const char* argument, int64_t rows, int64_t columns) const;
  // All arguments must have been read.
  void finish() const;
  // Whether the call can change anything: an output or a tensor written in place has bytes (without columns one of q8
  // still has scales). Kernels are called for nothing else, so that none of them loops over the many rows that a tensor
  // without columns may have.
  bool writes() const { return writes_; }
  // What dtype() has read, as a set of Types.
  unsigned named_types() const { return named_types_; }

 private:
  const View& next(const char* name, unsigned types, const int64_t* shape, int rank, bool optional, bool write);
  double whole(const char* name, int64_t low, int64_t high);
  void add(const View& output);

  const char* op_;
  Call& call_;
  std::vector<uint8_t> writable_;
  size_t tensor_ = 0;
  size_t number_ = 0;
  bool writes_ = false;
  unsigned named_types_ = 0;
};

}  // namespace dw
