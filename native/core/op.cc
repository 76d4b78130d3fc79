#include "core/op.h"

#include <cmath>

#include "core/memory.h"
#include "core/shape.h"

// Under AddressSanitizer nobody may touch what has not been taken, nor the bytes between two that have been.
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes) ((void)0)
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)0)
#endif

namespace dw {

#if defined(__SANITIZE_ADDRESS__)
constexpr int64_t kBetween = 64;
#else
constexpr int64_t kBetween = 0;
#endif

Workspace::Chunk::Chunk(int64_t size) : base(static_cast<char*>(allocate(size))), bytes(size) {
  ASAN_POISON_MEMORY_REGION(base, size_t(bytes));
}

void Workspace::Chunk::free() {
  ASAN_UNPOISON_MEMORY_REGION(base, size_t(bytes));
  deallocate(base);
}

Workspace::~Workspace() {
  for (auto& c : chunks_) c.free();
}

void Workspace::rewind(std::pair<size_t, int64_t> m) {
  chunk_ = m.first;
  used_ = m.second;
  for (size_t i = chunk_; i < chunks_.size(); i++) {
    [[maybe_unused]] const int64_t kept = i == chunk_ ? used_ : 0;
    ASAN_POISON_MEMORY_REGION(chunks_[i].base + kept, size_t(chunks_[i].bytes - kept));
  }
  if (chunk_ != 0 || used_ != 0 || chunks_.size() < 2) return;
  // Empty again, and it took several chunks: next time one will do.
  joined_ = 0;
  for (auto& c : chunks_) {
    joined_ += c.bytes;
    c.free();
  }
  chunks_.clear();
}

void* Workspace::take(int64_t count, int64_t each) {
  if (!is_countable({count}, each))
    throw Error("ERR_OUT_OF_MEMORY", "a kernel needs more scratch memory than there can be");
  const int64_t bytes = count * each;
  const int64_t size = (bytes + 63) / 64 * 64 + kBetween;
  while (chunk_ < chunks_.size() && used_ + size > chunks_[chunk_].bytes) {
    chunk_++;
    used_ = 0;
  }
  if (chunk_ == chunks_.size()) {
    int64_t want = size > (1 << 20) ? size : (1 << 20);
    want = want > joined_ ? want : joined_;
    joined_ = 0;
    chunks_.reserve(chunks_.size() + 1);
    chunks_.push_back(Chunk(want));
    used_ = 0;
  }
  void* p = chunks_[chunk_].base + used_;
  ASAN_UNPOISON_MEMORY_REGION(p, size_t(bytes));
  used_ += size;
  return p;
}

static std::string types_text(unsigned types) {
  std::string s;
  auto add = [&](unsigned bit, const char* name) {
    if (types & bit) s += (s.empty() ? "" : " or ") + std::string(name);
  };
  add(kF32, "f32");
  add(kBf16, "bf16");
  add(kI32, "i32");
  add(kQ8, "q8");
  return s;
}

void Prepare::fail(const char* code, const char* argument, const std::string& expected, const std::string& got) const {
  throw Error(code, std::string(op_) + ": argument '" + argument + "': expected " + expected + ", got " + got);
}

void Prepare::require(bool ok, const char* argument, const std::string& expected, const std::string& got) const {
  if (!ok) fail("ERR_SHAPE", argument, expected, got);
}

const View& Prepare::next(const char* name, unsigned types, const int64_t* shape, int rank, bool optional, bool write) {
  if (tensor_ >= call_.in.size()) fail("ERR_ARGUMENT", name, "a tensor", "nothing");
  const size_t i = tensor_++;
  const View& v = call_.in[i];
  if (!v) {
    if (!optional) fail("ERR_ARGUMENT", name, "a tensor", "null");
    return v;
  }
  if (!(types & (1u << unsigned(v.dtype)))) fail("ERR_DTYPE", name, types_text(types), v.describe());
  if (shape) {
    bool fits = v.rank == rank;
    for (int d = 0; fits && d < rank; d++) fits = shape[d] == kAny || shape[d] == v.shape[d];
    if (!fits) {
      std::string want = "[";
      for (int d = 0; d < rank; d++)
        want += (d ? ", " : "") + (shape[d] == kAny ? std::string("any") : std::to_string(shape[d]));
      fail("ERR_SHAPE", name, want + "]", v.describe());
    }
  }
  if (write && !writable_[i]) fail("ERR_ARGUMENT", name, "a tensor that may be written", "a frozen tensor");
  writes_ = writes_ || (write && v.bytes() > 0);
  return v;
}

double Prepare::number(const char* name, double low, double high) {
  if (number_ >= call_.num.size()) fail("ERR_ARGUMENT", name, "a number", "nothing");
  const double v = call_.num[number_++];
  if (!(v >= low && v <= high))
    fail("ERR_ARGUMENT", name, "a number from " + std::to_string(low) + " to " + std::to_string(high),
         std::to_string(v));
  return v;
}

double Prepare::whole(const char* name, int64_t low, int64_t high) {
  if (number_ >= call_.num.size()) fail("ERR_ARGUMENT", name, "an integer", "nothing");
  const double v = call_.num[number_++];
  if (!(v >= double(low) && v <= double(high) && std::floor(v) == v))
    fail("ERR_ARGUMENT", name, "an integer from " + std::to_string(low) + " to " + std::to_string(high),
         std::to_string(v));
  return v;
}

DType Prepare::dtype(const char* name) {
  const int64_t t = int64_t(whole(name, 0, 3));
  if (t == int64_t(DType::i32)) fail("ERR_DTYPE", name, "f32 or bf16", "i32");
  named_types_ |= 1u << unsigned(t);
  return DType(t);
}

void Prepare::output(DType dtype, std::initializer_list<int64_t> shape) {
  View v;
  v.dtype = dtype;
  for (int64_t n : shape) v.shape[v.rank++] = n;
  add(v);
}

void Prepare::output_like(const View& like, DType dtype) {
  View v = like;
  v.data = nullptr;
  v.dtype = dtype;
  add(v);
}

void Prepare::add(const View& v) {
  check_shape((std::string(op_) + ": its result").c_str(), v);
  writes_ = writes_ || v.bytes() > 0;
  call_.out.push_back(v);
}

void Prepare::scratch(const char* argument, int64_t rows, int64_t columns) const {
  require(is_countable({rows, columns}, 8), argument, "rows and columns that fit in less than 2^53 bytes",
          std::to_string(rows) + " x " + std::to_string(columns));
}

void Prepare::finish() const {
  if (tensor_ != call_.in.size())
    throw Error("ERR_ARGUMENT", std::string(op_) + ": expected " + std::to_string(tensor_) + " tensors, got " +
                                    std::to_string(call_.in.size()));
  if (number_ != call_.num.size())
    throw Error("ERR_ARGUMENT", std::string(op_) + ": expected " + std::to_string(number_) + " numbers, got " +
                                    std::to_string(call_.num.size()));
}

}  // namespace dw
