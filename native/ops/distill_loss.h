// The arguments of distill_loss, for the oracle and the kernels.
#pragma once
#include "core/op.h"

namespace dw {

enum class Distill { none = 0, js = 1, kl = 2 };
constexpr int32_t kIgnored = -100;

struct DistillLoss {
  const View &hidden, &weight, &labels, &teacher_hidden, &teacher_weight, &dweight;
  int64_t rows, width, vocabulary, teacher_width;
  double smoothing, temperature;
  Distill kind;
  double ce_weight, kd_weight;
  bool all_positions, grad;
  DType compute;
  int64_t workspace;
  double epsilon;
  int64_t labelled;  // rows whose label is not ignored
  double positions;  // rows over which the divergence is averaged

  bool is_labelled(int64_t r) const { return labels.as<int32_t>()[r] != kIgnored; }
  // What a row's cross-entropy and divergence weigh in the total, by their means' denominators.
  double ce_share(int64_t r) const { return is_labelled(r) ? ce_weight / double(labelled) : 0; }
  bool distilled(int64_t r) const { return kind != Distill::none && (all_positions || is_labelled(r)); }
  double kd_share(int64_t r) const { return distilled(r) ? kd_weight / positions : 0; }
};

// Throws ERR_ARGUMENT when a label is neither ignored nor a token.
DistillLoss distill_loss_call(const Call& call);

}  // namespace dw
