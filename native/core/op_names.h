// The operations by name: a device's plugin compiles this list too, and the addon compares the two.
#pragma once

// clang-format off
#define DW_OPS(X)                                                                                  \
  /* products */                                                                                   \
  X(linear) X(linear_backward_input) X(linear_backward_weight) X(quantize)                         \
  X(gelu_backward)                                                                                 \
  /* convolution as products: rows of a sliding window, and back */                                \
  X(unfold) X(fold)                                                                                \
  /* normalisation */                                                                              \
  X(layer_norm) X(layer_norm_backward)                                                             \
  /* attention */                                                                                  \
  X(attention) X(attention_backward)                                                               \
  /* rows */                                                                                       \
  X(embedding) X(embedding_backward) X(add) X(add_backward_rows) X(cast) X(fill) X(cache_write)     \
  /* gated experts */                                                                              \
  X(gated_ffn) X(gated_ffn_backward) X(gated_ffn_hard) X(gate_budget)                              \
  /* losses */                                                                                     \
  X(distill_loss)                                                                                  \
  /* optimiser */                                                                                  \
  X(global_norm) X(adamw)                                                                          \
  /* audio */                                                                                      \
  X(log_mel) X(mel_filters) X(resample)                                                            \
  /* decoding */                                                                                   \
  X(top_k) X(cache_reorder) X(decoder_layer)                                                        \
  /* randomness, as the other kernels draw it */                                                   \
  X(random_normal) X(random_uniform)
// clang-format on
