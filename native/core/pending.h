// Operations of the table whose kernels are not merged yet: a line less with every merge.
#pragma once
// clang-format off
#define DW_PENDING(X)                                                                              \
  X(linear) X(linear_backward_input) X(linear_backward_weight)                                     \
  X(unfold) X(fold)                                                                                \
  X(layer_norm) X(layer_norm_backward)                                                             \
  X(attention) X(attention_backward)                                                               \
  X(embedding) X(embedding_backward) X(add) X(add_backward_rows) X(cast) X(fill) X(cache_write)     \
  X(gated_ffn) X(gated_ffn_backward) X(gated_ffn_hard) X(gate_budget)                              \
  X(distill_loss)
// clang-format on
