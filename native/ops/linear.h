// Linear layers, their weights in int8, and the width-3 convolutions as rows for such a product.
#pragma once
#include "core/prepare.h"
#include "core/work.h"

namespace dw {

// y = act(x·Wᵀ + b) + residual        x [.., K], weight [N, K], bias? [N] → y [.., N], and with save_pre pre [.., N]
// Products in `compute`, y and pre in `type`. A weight in q8 with compute bf16: rows x are numbers of 16 bits times one
// scale, max |x| / 32512.
struct Linear {
  View x;
  Weight weight;
  View bias, residual;
  bool gelu = false, save_pre = false;
  DType compute = DType::f32, type = DType::f32;
  View y, pre;

  void declare(Prepare& p);
  void count(Count& c) const;
};

// dx = (dy·W) ⊙ gelu'(gelu_of) + residual        dy [.., N], weight [N, K] → dx [.., K]
struct LinearBackwardInput {
  View dy;
  Weight weight;
  View gelu_of, residual;
  DType compute = DType::f32, type = DType::f32;
  View dx;

  void declare(Prepare& p);
  void count(Count& c) const;
};

// dweight += dyᵀ·x, dbias += Σ_rows dy        dy [.., N], x [.., K]; with x_gelu, x holds what gelu was applied to
struct LinearBackwardWeight {
  View dy, x, dweight, dbias;
  bool x_gelu = false;
  DType compute = DType::f32;

  void declare(Prepare& p);
  void count(Count& c) const;
};

// Rows of W [.., K] as int8 and their scales: q[n, k] = round(W[n, k] / s[n]), s[n] = max |W[n, ·]| / 127
struct Quantize {
  View weight, quantized;

  void declare(Prepare& p);
};

// y[b, t, 3·c + j] = x[b, stride·t + j − 1, c], zero outside        x [B, T, C], or [B, C, T] when channels come first
struct Unfold {
  View x;
  int64_t stride = 1;
  bool channels_first = false;
  DType type = DType::f32;
  View y;

  int64_t length() const { return channels_first ? x.shape[2] : x.shape[1]; }
  int64_t channels() const { return channels_first ? x.shape[1] : x.shape[2]; }
  void declare(Prepare& p);
};

// The adjoint of unfold: rows [B, ceil(T / stride), 3·C] → dx [B, T, C]
struct Fold {
  View rows;
  int64_t length = 0, stride = 1;
  View dx;

  void declare(Prepare& p);
};

}  // namespace dw
