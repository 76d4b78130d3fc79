// Embeddings, sums, casts and cache rows; the formulas stand in reference/rows.cc.
#pragma once
#include "core/prepare.h"
#include "core/work.h"

namespace dw {

// y[b, t] = table[ids[b, t]] + positions[offset + t]        ids i32 [B, T], table [V, D], positions [P, D], y [B, T, D]
struct Embedding {
  View ids, table, positions;
  View position;  // ops/position.h; may be left out
  int64_t offset = 0;
  DType type = DType::f32;
  View y;

  void declare(Prepare& p);
  void count(Count& c) const;
};

// dtable[ids[b, t]] += dy[b, t] unless ids[b, t] = padding;  dpositions[offset + t] += dy[b, t]
// dy [B, T, D], ids i32 [B, T], dtable? [V, D], dpositions? [P, D]
struct EmbeddingBackward {
  View dy, ids, dtable, dpositions;
  int64_t offset = 0;
  int64_t padding = -1;  // -1: none

  void declare(Prepare& p);
  void count(Count& c) const;
};

// y = alpha·a + beta·b        b has as many elements as a, or the trailing shape of a and repeats
struct Add {
  View a, b;
  double alpha = 1, beta = 1;
  DType type = DType::f32;
  View y;

  void declare(Prepare& p);
};

// dpositions[t] += Σ_b dy[b, t]        dy [B, T, D], dpositions [T, D]
struct AddBackwardRows {
  View dy, dpositions;

  void declare(Prepare& p);
  void count(Count& c) const;
};

// y = x, in `type`
struct Cast {
  View x;
  DType type = DType::f32;
  View y;

  void declare(Prepare& p);
};

// x[..] = value
struct Fill {
  View x;
  double value = 0;

  void declare(Prepare& p);
};

// cache[:, offset : offset + t] = x        x [B, t, D], cache [B, P, D]
struct CacheWrite {
  View x, cache;
  View position;  // ops/position.h; of a decoder layer on a device that reads it when it runs, else null
  int64_t offset = 0;

  void declare(Prepare& p);
  void count(Count& c) const;
};

}  // namespace dw
