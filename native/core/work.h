// How much an operation computes and moves, by its arguments: what a profile divides by the time that it took.
#pragma once
#include <cstdint>
#include <initializer_list>

#include "core/tensor.h"

namespace dw {

constexpr int kWorkRank = 4;

struct Work {
  // Of products, attention and transforms, a multiply and an add counted as two. Operations on single elements count
  // none: memory is what bounds them.
  double flop = 0;
  // Every tensor that is read or written, once; twice where it is updated in place.
  double bytes = 0;
  DType type = DType::f32;  // that the products are computed in; of the first tensor where there are none
  int rank = 0;
  int64_t shape[kWorkRank] = {};  // of a product [rows, inputs, outputs]; else of the first tensor
};

// What an operation says of its work where it is more than moving its tensors once: `void count(Count&) const`.
struct Count {
  Work work;      // every tensor has been counted once
  bool readable;  // values of tensors may be read

  void shape(std::initializer_list<int64_t> dims) {
    work.rank = 0;
    for (int64_t n : dims) work.shape[work.rank++] = n;
  }
  // A tensor that is updated in place is read and written.
  void updated(const View& v) { work.bytes += bytes(v); }
  // Of a tensor only this share is touched.
  void only(const View& v, double share) { work.bytes -= bytes(v) * (1 - share); }

  static double bytes(const View& v) { return v ? double(v.bytes()) : 0; }
  // rows × inputs × outputs
  static double product(double m, double k, double n) { return 2 * m * k * n; }
};

}  // namespace dw
