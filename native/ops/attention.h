// Attention; the formulas stand in reference/attention.cc.
#pragma once
#include "core/prepare.h"
#include "core/work.h"

namespace dw {

// q, o [B, Tq, D], o in `type`; k, v [B, Tk, D], both or neither in q8 by heads (ops/keys.h); lse f32 [B, heads, Tq]
struct Attention {
  View q, k, v;
  View position;  // ops/position.h; of a decoder layer on a device that reads it when it runs, else null
  int64_t heads = 1;
  bool causal = false;
  int64_t kv_len = 0;    // keys that count
  int64_t q_offset = 0;  // of the first query's position from the first key's
  DType type = DType::f32;
  View o, lse;

  void declare(Prepare& p);
  void count(Count& c) const;
};

// q, o, dout, dq [B, Tq, D]; k, v, dk, dv [B, Tk, D]; lse [B, heads, Tq]; dq, dk and dv in `type`
struct AttentionBackward {
  View q, k, v, o, lse, dout;
  int64_t heads = 1;
  bool causal = false;
  DType type = DType::f32;
  View dq, dk, dv;

  void declare(Prepare& p);
  void count(Count& c) const;
};

// Pairs of a query and a key that it sees, in one item and one head.
double seen_pairs(double queries, double keys, bool causal, double offset);

}  // namespace dw
