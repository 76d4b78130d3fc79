// How operations state their arguments. An operation is a struct of named arguments with
//   void declare(Prepare&)
// which names them in their order, says what each may be, and states the outputs: the only place that knows. It serves
//   a new call (JavaScript thread): it is checked, and its outputs are stated;
//   a call that was prepared so (a stream's worker; a device's plugin): the struct is filled for a kernel;
//   a struct that another operation has filled for a part of its work: it is checked, and given the outputs that it lacks.
#pragma once
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <type_traits>
#include <vector>

#include "core/call.h"
#include "core/error.h"

namespace dw {

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

// A matrix that is mostly frozen: its packed form is kept with its storage, where there is one.
struct Weight : View {
  Storage* storage = nullptr;
};

class Prepare {
 public:
  // A new call: `writable`, which of its tensors are not frozen. Outputs are added to the call.
  Prepare(const char* op, Call& call, std::vector<uint8_t> writable)
      : op_(op), call_(&call), made_(&call), writable_(std::move(writable)) {}
  // A call that has its outputs: every check has passed.
  Prepare(const char* op, const Call& call) : op_(op), call_(&call) {}
  // A struct that has its arguments; `take` gives memory for outputs.
  using Take = std::function<void*(int64_t bytes)>;
  Prepare(const char* op, const Take& take) : op_(op), take_(&take) {}

  // The next tensor. `shape` (kAny = free) is checked when given; without it any shape passes.
  void tensor(View& v, const char* name, unsigned types) { next(v, name, types, nullptr, 0, kRequired); }
  void tensor(View& v, const char* name, unsigned types, std::initializer_list<int64_t> shape) {
    next(v, name, types, shape.begin(), int(shape.size()), kRequired);
  }
  void tensor(Weight& v, const char* name, unsigned types, std::initializer_list<int64_t> shape) {
    next(v, name, types, shape.begin(), int(shape.size()), kRequired);
    if (call_) v.storage = call_->storage.empty() ? nullptr : call_->storage[tensor_ - 1].get();
  }
  // The next tensor, which may be null: test it with `if (view)`.
  void optional(View& v, const char* name, unsigned types, std::initializer_list<int64_t> shape) {
    next(v, name, types, shape.begin(), int(shape.size()), kOptional);
  }
  // A tensor that the kernel writes in place: it must not be frozen.
  void inout(View& v, const char* name, unsigned types, std::initializer_list<int64_t> shape) {
    next(v, name, types, shape.begin(), int(shape.size()), kWritten);
  }
  void inout(View& v, const char* name, unsigned types) { next(v, name, types, nullptr, 0, kWritten); }
  void optional_inout(View& v, const char* name, unsigned types, std::initializer_list<int64_t> shape) {
    next(v, name, types, shape.begin(), int(shape.size()), kOptional | kWritten);
  }
  // The same of the shape of another tensor.
  void like(View& v, const View& other, const char* name, unsigned types) {
    next(v, name, types, other.shape, other.rank, kRequired);
  }
  void optional_like(View& v, const View& other, const char* name, unsigned types) {
    next(v, name, types, other.shape, other.rank, kOptional);
  }
  void inout_like(View& v, const View& other, const char* name, unsigned types) {
    next(v, name, types, other.shape, other.rank, kWritten);
  }
  // A last tensor that calls may leave out altogether.
  void trailing(View& v, const char* name, unsigned types, std::initializer_list<int64_t> shape) {
    if (call_ ? tensor_ < call_->in.size() : bool(v)) tensor(v, name, types, shape);
  }
  // A tensor that no call has: another operation gives it, or leaves it null.
  void inner(View& v, const char* name, unsigned types, std::initializer_list<int64_t> shape) {
    if (!call_ && v) tensor(v, name, types, shape);
  }
  // As many of `all` as the call has tensors left: state each of them.
  void rest(std::vector<View>& all) const {
    if (call_) all.resize(call_->in.size() - tensor_);
  }

  void number(double& v, const char* name, double low, double high);
  template <class T>
  void integer(T& v, const char* name, int64_t low, int64_t high) {
    v = static_cast<T>(int64_t(whole(double(static_cast<int64_t>(v)), name, low, high)));
  }
  void flag(bool& v, const char* name) { integer(v, name, 0, 1); }
  // A float type, given as its number.
  void dtype(DType& v, const char* name);
  // How many of `all` there are; state each of them.
  template <class T>
  void several(std::vector<T>& all, const char* name, int64_t most) {
    size_t count = all.size();
    integer(count, name, 0, most);
    all.resize(count);
  }

  // Expected and got: a text, a number or a tensor; or a function that makes the text, which costs nothing where all is
  // well.
  template <class Expected, class Got>
  void require(bool ok, const char* argument, const Expected& expected, const Got& got) const {
    if (!ok) fail("ERR_SHAPE", argument, text(expected), text(got));
  }
  [[noreturn]] void fail(const char* code, const char* argument, const std::string& expected,
                         const std::string& got) const;

  void output(View& v, DType dtype, std::initializer_list<int64_t> shape);
  void output_like(View& v, const View& like, DType dtype);
  // The most scratch memory that a kernel takes for rows × columns which no tensor of the call has: ERR_SHAPE where
  // that is no number of bytes.
  void scratch(const char* argument, int64_t rows, int64_t columns) const;
  // All arguments of a new call must have been declared.
  void finish() const;
  // Whether a new call can change anything: an output or a tensor written in place has bytes (without columns one of q8
  // still has scales). Kernels are called for nothing else, so that none of them loops over the many rows that a tensor
  // without columns may have.
  bool writes() const { return writes_; }
  // What dtype() has read, as a set of Types.
  unsigned named_types() const { return named_types_; }

 private:
  enum Use : unsigned { kRequired = 0, kOptional = 1, kWritten = 2 };
  bool checked() const { return call_ && !made_; }
  void next(View& v, const char* name, unsigned types, const int64_t* shape, int rank, unsigned use);
  double whole(double given, const char* name, int64_t low, int64_t high);
  double next_number(double given, const char* name, const char* what);
  void state(View& v, const View& stated);

  static std::string text(const char* s) { return s; }
  static std::string text(int64_t n) { return std::to_string(n); }
  static std::string text(double n) { return std::to_string(n); }
  static std::string text(const View& v) { return v.describe(); }
  template <class Make>
  static auto text(const Make& make) -> decltype(std::string(make())) {
    return make();
  }

  const char* op_;
  const Call* call_ = nullptr;  // null: the struct has its arguments
  Call* made_ = nullptr;        // a new call
  const Take* take_ = nullptr;
  std::vector<uint8_t> writable_;
  size_t tensor_ = 0, number_ = 0, output_ = 0;
  bool writes_ = false;
  unsigned named_types_ = 0;
};

// The arguments of a prepared call.
template <class Op>
Op read(const char* name, const Call& call) {
  Op op;
  Prepare p(name, call);
  op.declare(p);
  return op;
}

// Checks the arguments of a part that another operation has filled in, and gives it the outputs that it lacks. Throws
// what a call of the part would.
template <class Op>
void complete(const char* name, Op& op, const Prepare::Take& take) {
  Prepare p(name, take);
  op.declare(p);
}

}  // namespace dw
