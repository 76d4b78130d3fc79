// One decoder layer of a token by token decoding: one call instead of fifteen, because at a row or two the calls cost as
// much as their arithmetic. D width, S rows of the encoder.
//   h = x + W_o·attention(q, K, V) + b_o      (q, k, v) = W·norm(x) + b;  k, v go behind the keys and values so far
//   h = h + W_o·attention(q, M_k, M_v) + b_o  q = W·norm(h) + b;          M: of the encoder's output, all of it
//   y = h + FFN(norm(h))                      the shared FFN, or of a row whose gate is 1 its language's
// Sequences that hear the same (the beams of an utterance) stand behind one another and share an item of M.
#pragma once
#include "ops/gated_ffn.h"

namespace dw {

struct DecoderLayer {
  struct Norm {
    View weight, bias;  // [D]
  };
  struct Square {
    Weight weight;  // [D, D]
    View bias;      // [D], null where there is none
  };
  View x;  // f32 [B, T, D]
  Norm norm;
  Square q, k, v, out;
  View keys, values;  // caches [B, P, D], to which rows [offset, offset + T) are written
  Norm cross_norm;
  Square cross_q, cross_out;
  View cross_keys, cross_values;  // ops/keys.h; of C items and S rows, each item for the next B / C of x
  Norm ffn_norm;
  Ffn shared;
  std::vector<Expert> experts;
  View position;  // ops/position.h, for one token an item; may be left out
  int64_t heads = 1, offset = 0;
  double epsilon = 0;
  DType compute = DType::f32;
  View y, g;  // f32 [B, T, D], f32 [B·T] (0 or 1)

  int64_t batch() const { return x.shape[0]; }
  int64_t tokens() const { return x.shape[1]; }
  int64_t width() const { return x.shape[2]; }
  void declare(Prepare& p);
  void count(Count& c) const;
};

}  // namespace dw
