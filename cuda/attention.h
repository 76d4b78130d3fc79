// What the attention kernels share. Formulas stand in native/reference/attention.cc.
#pragma once
#include "core/tensor.h"
#include "runtime/context.h"

namespace dw {
namespace cuda {

struct AttentionShape {
  int batch, queries, keys, heads, width;
  int key_count;                      // keys that count; the rows behind them are never read
  int offset;                         // of the first query's position from the first key's
  const int32_t* position = nullptr;  // where few_queries finds the offset when it runs, `offset` at most; or null
  bool causal;
  float scale;  // of the products, width^-0.5
  int64_t row;  // elements from one row to the next

  int64_t pairs() const { return int64_t(batch) * heads; }
};

// Tensor cores: bf16, heads of width 64, rows that start at multiples of 16 bytes.
bool flash_fits(const AttentionShape& z, const View& q, const View& k, const View& v);
// delta f32 [batch, heads, queries]: Σ do·o; dout is bf16. `tiles` of 16 rows for a warp: 1 or 2, or 0 to choose.
void flash_forward(Context& c, const AttentionShape& z, const View& q, const View& k, const View& v, const View& o,
                   float* lse, int tiles = 0);
void flash_backward(Context& c, const AttentionShape& z, const View& q, const View& k, const View& v, const View& dout,
                    const float* lse, const float* delta, const View& dq, const View& dk, const View& dv,
                    int tiles = 0);

// Any type and width up to 128, in full f32.
void plain_forward(Context& c, const AttentionShape& z, const View& q, const View& k, const View& v, const View& o,
                   float* lse);
void plain_backward(Context& c, const AttentionShape& z, const View& q, const View& k, const View& v, const View& dout,
                    const float* lse, const float* delta, const View& dq, const View& dk, const View& dv);

// A few queries against many keys (decoding), any type and width up to 128.
void few_queries(Context& c, const AttentionShape& z, const View& q, const View& k, const View& v, const View& o,
                 float* lse);

}  // namespace cuda
}  // namespace dw
