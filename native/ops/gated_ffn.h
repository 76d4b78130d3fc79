// The gated expert FFN; the formulas stand in reference/gated_ffn.cc. D width, F inner width, H gate width, R rows; C of
// them belong to some language.
#pragma once
#include "core/work.h"
#include "ops/gate_draws.h"

namespace dw {

// fc1 [F, D] and its bias [F], fc2 [D, F] and its bias [D]
struct Ffn {
  Weight fc1;
  View fc1_bias;
  Weight fc2;
  View fc2_bias;
};

// A language: its rows, gate_in [H, D] and its bias [H], gate_out [1, H], and the expert.
struct Expert {
  Weight gate_in;
  View gate_in_bias, gate_out;
  Ffn ffn;
  int64_t begin = 0, end = 0;  // its rows
  int64_t saved = 0;           // where its first row stands among the rows that belong to some language, in order

  int64_t rows() const { return end - begin; }
};

// A gradient for each of an expert's tensors, which is added to; null: frozen.
struct ExpertGradients {
  View gate_in, gate_in_bias, gate_out, fc1, fc1_bias, fc2, fc2_bias;
};

// What training, its way back and inference have in common: rows x [.., D], the shared FFN, and the languages in the
// order of their rows, whose ranges are disjoint. Rows of no language take the shared FFN, and g = 0.
struct GatedRows {
  View x;
  Ffn shared;
  std::vector<Expert> experts;
  int64_t rows = 0, width = 0, inner = 0, gate = 0;
  int64_t covered = 0;  // rows that belong to some language

  // Of the way forward: the shared FFN for all rows and the gates.
  double forward_flop() const;
  double ffn_flop(double rows) const;
  void count_shape(Count& c, DType compute) const;

 protected:
  void declare_count(Prepare& p) { p.several(experts, "languages", 1000); }
  void declare_weights(Prepare& p, unsigned types);
  void declare_ranges(Prepare& p);
};

// Training.
struct GatedFfn : GatedRows {
  View residual;  // [.., D], may be null
  GateDraws draws;
  DType compute = DType::f32, type = DType::f32;
  View y, g;  // [.., D] in `type`, [R]
  // For the way back: [C, H] after the relu; [R, F], [C, F], and drop(FFN_l(x)) - FFN_shared(x) [C, D] in `compute`.
  // Skipped: pre_expert and delta have no rows.
  View gate_hidden, pre_shared, pre_expert, delta;
  View chosen;  // [R]: 1 where inference would choose the expert, G ≥ 0 without noise; else 0

  void declare(Prepare& p);
  void count(Count& c) const;
};

// The way back. dgate [1] of the gates' budget, may be null; dx in `type`.
struct GatedFfnBackward : GatedRows {
  View dy, dgate;
  GateDraws draws;
  View g, gate_hidden, pre_shared, pre_expert, delta;  // as GatedFfn left them
  std::vector<ExpertGradients> gradients;              // of a language each
  DType compute = DType::f32, type = DType::f32;
  View dx;

  void declare(Prepare& p);
  void count(Count& c) const;
};

// Inference: g is 0 or 1.
struct GatedFfnHard : GatedRows {
  View residual;  // [.., D], may be null
  DType compute = DType::f32, type = DType::f32;
  View y, g;  // [.., D] in `type`, [R]

  void declare(Prepare& p);
  void count(Count& c) const;
};

// g [..] of every layer → mean [1], loss [1] = |mean - budget|, dgate [1] = weight·sign(mean - budget) / count
struct GateBudget {
  std::vector<View> gates;
  double budget = 0, weight = 0;
  double rows = 0;  // that belong to a language, over all layers; 0: all that are given
  View mean, loss, dgate;

  void declare(Prepare& p);
};

}  // namespace dw
