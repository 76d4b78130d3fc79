// Cross-entropy and distillation of a language model's last hidden rows, and their gradient; the formulas stand in
// reference/distill_loss.cc.
#pragma once
#include "core/prepare.h"
#include "core/work.h"

namespace dw {

enum class Distill { none = 0, js = 1, kl = 2 };  // KL(T||S)
constexpr int32_t kIgnored = -100;

// hidden [N, D], weight [V, D], labels i32 [N], and of a teacher hidden rows [N, Dt] and weight [V, Dt]
struct DistillLoss {
  View hidden, weight, labels;
  View teacher_hidden, teacher_weight;  // null without a teacher
  View dweight;                         // [V, D], added to; may be null
  double smoothing = 0, temperature = 1;
  Distill kind = Distill::none;
  double ce_weight = 1, kd_weight = 0;
  bool all_positions = false;  // the divergence is taken over all rows, not over those with a label
  bool grad = false;
  DType compute = DType::f32;
  int64_t workspace = 0;  // bytes
  double epsilon = 0;     // inside JS's log(m + epsilon)
  View stats;             // [4]: mean CE over labelled rows, mean divergence·temperature², total, labelled rows
  View ce_rows, kd_rows;  // [N], the latter each ·temperature²; 0 for rows that do not count
  View dhidden;           // [N, D] = d total / d hidden; [0, D] without grad

  void declare(Prepare& p);
  void count(Count& c) const;
};

// The same for kernels that can read the labels, with what follows from shapes and labels. Tensors by reference: the last
// bits of dhidden hang on how the compiler, which may reassociate sums, sees these members.
struct LabelledLoss {
  // Throws ERR_ARGUMENT when a label is neither ignored nor a token.
  explicit LabelledLoss(const DistillLoss& loss);

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
  const View &stats, &ce_rows, &kd_rows, &dhidden;

  bool is_labelled(int64_t r) const { return labels.as<int32_t>()[r] != kIgnored; }
  // What a row's cross-entropy and divergence weigh in the total, by their means' denominators.
  double ce_share(int64_t r) const { return is_labelled(r) ? ce_weight / double(labelled) : 0; }
  bool distilled(int64_t r) const { return kind != Distill::none && (all_positions || is_labelled(r)); }
  double kd_share(int64_t r) const { return distilled(r) ? kd_weight / positions : 0; }
};

}  // namespace dw
