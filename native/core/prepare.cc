#include "core/prepare.h"

#include <algorithm>
#include <cmath>

#include "core/shape.h"

namespace dw {

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

void Prepare::next(View& v, const char* name, unsigned types, const int64_t* shape, int rank, unsigned use) {
  if (call_) {
    if (tensor_ >= call_->in.size()) fail("ERR_ARGUMENT", name, "a tensor", "nothing");
    v = call_->in[tensor_++];
  }
  if (checked()) return;
  if (!v) {
    if (!(use & kOptional)) fail("ERR_ARGUMENT", name, "a tensor", "null");
    return;
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
  if (!(use & kWritten)) return;
  if (made_ && !writable_[tensor_ - 1]) fail("ERR_ARGUMENT", name, "a tensor that may be written", "a frozen tensor");
  writes_ = writes_ || v.bytes() > 0;
}

double Prepare::next_number(double given, const char* name, const char* what) {
  if (!call_) return given;
  if (number_ >= call_->num.size()) fail("ERR_ARGUMENT", name, what, "nothing");
  return call_->num[number_++];
}

void Prepare::number(double& v, const char* name, double low, double high) {
  v = next_number(v, name, "a number");
  if (!(v >= low && v <= high))
    fail("ERR_ARGUMENT", name, "a number from " + std::to_string(low) + " to " + std::to_string(high),
         std::to_string(v));
}

double Prepare::whole(double given, const char* name, int64_t low, int64_t high) {
  const double v = next_number(given, name, "an integer");
  if (!(v >= double(low) && v <= double(high) && std::floor(v) == v))
    fail("ERR_ARGUMENT", name, "an integer from " + std::to_string(low) + " to " + std::to_string(high),
         std::to_string(v));
  return v;
}

void Prepare::dtype(DType& v, const char* name) {
  integer(v, name, 0, 3);
  if (v == DType::i32) fail("ERR_DTYPE", name, "f32 or bf16", "i32");
  named_types_ |= 1u << unsigned(v);
}

void Prepare::output(View& v, DType dtype, std::initializer_list<int64_t> shape) {
  View stated;
  stated.dtype = dtype;
  for (int64_t n : shape) stated.shape[stated.rank++] = n;
  state(v, stated);
}

void Prepare::output_like(View& v, const View& like, DType dtype) {
  View stated = like;
  stated.data = nullptr;
  stated.dtype = dtype;
  state(v, stated);
}

void Prepare::state(View& v, const View& stated) {
  if (checked()) {
    v = call_->out[output_++];
    return;
  }
  if (made_) {
    check_shape((std::string(op_) + ": its result").c_str(), stated);
    writes_ = writes_ || stated.bytes() > 0;
    made_->out.push_back(stated);
    v = stated;
    return;
  }
  if (v) {
    const bool fits =
        v.dtype == stated.dtype && v.rank == stated.rank && std::equal(v.shape, v.shape + v.rank, stated.shape);
    require(fits, "its result", stated, v);
    return;
  }
  v = stated;
  v.present = true;
  v.data = (*take_)(v.bytes());
}

void Prepare::scratch(const char* argument, int64_t rows, int64_t columns) const {
  require(is_countable({rows, columns}, 8), argument, "rows and columns that fit in less than 2^53 bytes",
          [&] { return std::to_string(rows) + " x " + std::to_string(columns); });
}

void Prepare::finish() const {
  if (tensor_ != call_->in.size())
    throw Error("ERR_ARGUMENT", std::string(op_) + ": expected " + std::to_string(tensor_) + " tensors, got " +
                                    std::to_string(call_->in.size()));
  if (number_ != call_->num.size())
    throw Error("ERR_ARGUMENT", std::string(op_) + ": expected " + std::to_string(number_) + " numbers, got " +
                                    std::to_string(call_->num.size()));
}

}  // namespace dw
