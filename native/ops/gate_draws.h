// What a training pass draws at random for the gated FFN of a layer: noise of the gates, dropout, and whether the
// experts are left out.
#pragma once
#include "core/philox.h"
#include "core/philox_streams.h"
#include "core/prepare.h"
#include "ops/dropout.h"

namespace dw {

// What an expert's share of a row is, of g = sigmoid(..): g itself, or where gates are straight the hard choice, whose
// gradient is taken to be that of g (Bengio et al. 2013).
DW_ANYWHERE inline float gate_share(float g, bool straight) { return straight ? (g >= 0.5f ? 1.0f : 0.0f) : g; }

struct GateDraws {
  View noise;                   // [rows], or null: drawn
  View gate_mask, expert_mask;  // [rows, D], or null: drawn
  bool skip = false;            // the experts are left out
  double alpha = 0;             // of the noise
  double gate_dropout = 0, expert_dropout = 0;
  uint64_t seed = 0;
  uint32_t step = 0;
  uint32_t op = 0;        // the first Philox stream of the layer
  bool straight = false;  // gates are hard on the way forward

  uint32_t noise_op() const { return op + kGateNoise; }
  DropoutDraw of_gate() const { return {gate_mask ? &gate_mask : nullptr, gate_dropout, seed, step, op + kGateMask}; }
  DropoutDraw of_expert() const {
    return {expert_mask ? &expert_mask : nullptr, expert_dropout, seed, step, op + kExpertMask};
  }
  // The gate's noise of a row: the given one, or drawn; 0 when alpha is 0.
  double noise_of(int64_t row) const;

  void declare_masks(Prepare& p, int64_t rows, int64_t width);
  void declare_settings(Prepare& p);
};

}  // namespace dw
