// Where the tensors and numbers of the gated expert operations stand in a call, for the oracle and the kernels of every
// backend.
#pragma once
#include "core/op.h"

namespace dw {

// Tensors of a language's expert, counted from its first; the shared FFN is the same without the two gates.
enum Expert : size_t { kGateInW, kGateInB, kGateOutW, kFc1W, kFc1B, kFc2W, kFc2B, kExpertTensors };

struct GatedFfn {
  const Call& call;
  size_t x, residual, shared, experts, noise, gate_mask, expert_mask, saved, gradients;  // positions in call.in
  size_t settings;                                                                       // position in call.num
  int64_t rows, width, inner, gate, languages;
  int64_t covered;  // rows that belong to some language

  int64_t begin(int64_t l) const { return call.integer(size_t(1 + 2 * l)); }
  int64_t end(int64_t l) const { return call.integer(size_t(2 + 2 * l)); }
  // Saved tensors of experts hold only rows that belong to a language, in order; this is the first of language l.
  int64_t saved_row(int64_t l) const;
  size_t expert(int64_t l, size_t tensor) const { return experts + size_t(l) * kExpertTensors + tensor; }
  size_t gradient(int64_t l, size_t tensor) const { return gradients + size_t(l) * kExpertTensors + tensor; }
  const View& at(size_t i) const { return call.in[i]; }

  // Settings of the training forms.
  bool skip() const { return call.num[settings] != 0; }
  double alpha() const { return call.num[settings + 1]; }
  double gate_dropout() const { return call.num[settings + 2]; }
  double expert_dropout() const { return call.num[settings + 3]; }
  uint64_t seed() const { return uint64_t(call.num[settings + 4]); }
  uint32_t step() const { return uint32_t(call.num[settings + 5]); }
  uint32_t op() const { return uint32_t(call.num[settings + 6]); }
};

inline int64_t GatedFfn::saved_row(int64_t l) const {
  int64_t row = 0;
  for (int64_t i = 0; i < l; i++) row += end(i) - begin(i);
  return row;
}

namespace detail {
inline GatedFfn layout(const Call& call, size_t x, size_t shared) {
  const int64_t languages = call.integer(0);
  GatedFfn f{call, x, 0, shared, shared + 4, 0, 0, 0, 0, 0, size_t(1 + 2 * languages), 0, 0, 0, 0, languages, 0};
  f.rows = call.in[x].rows();
  f.width = call.in[x].cols();
  f.inner = call.in[shared].rows();
  f.gate = languages ? call.in[f.experts].rows() : 0;
  for (int64_t l = 0; l < languages; l++) f.covered += f.end(l) - f.begin(l);
  return f;
}
}  // namespace detail

inline GatedFfn gated_ffn_call(const Call& call) {
  GatedFfn f = detail::layout(call, 0, 2);
  f.residual = 1;
  f.noise = f.expert(f.languages, 0);
  f.gate_mask = f.noise + 1;
  f.expert_mask = f.noise + 2;
  return f;
}

inline GatedFfn gated_ffn_backward_call(const Call& call) {
  GatedFfn f = detail::layout(call, 2, 3);
  f.gate_mask = f.expert(f.languages, 0);
  f.expert_mask = f.gate_mask + 1;
  f.saved = f.gate_mask + 2;
  f.gradients = f.saved + 5;
  return f;
}

inline GatedFfn gated_ffn_hard_call(const Call& call) {
  GatedFfn f = detail::layout(call, 0, 2);
  f.residual = 1;
  return f;
}

// The gate's noise of a row: the given one, or drawn; 0 when alpha is 0.
double gate_noise(const GatedFfn& f, int64_t row);
// The factor by which dropout multiplies element i of [rows, width]: 0, or 1 / (1 - p).
double gate_keep(const GatedFfn& f, int64_t i);
double expert_keep(const GatedFfn& f, int64_t i);

}  // namespace dw
