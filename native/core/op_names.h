// The operations by name, each with the struct of its arguments (native/ops): those that devices have too, and all. A
// device's plugin compiles this list, and the addon compares the two.
#pragma once

// clang-format off
#define DW_DEVICE_OPS(X)                                                                           \
  /* products */                                                                                   \
  X(linear, Linear)                                                                                \
  X(linear_backward_input, LinearBackwardInput)                                                    \
  X(linear_backward_weight, LinearBackwardWeight)                                                  \
  X(gelu, Gelu)                                                                                    \
  X(gelu_backward, GeluBackward)                                                                   \
  X(drop, Drop)                                                                                    \
  /* convolution as products: rows of a sliding window, and back */                                \
  X(unfold, Unfold)                                                                                \
  X(fold, Fold)                                                                                    \
  /* normalisation */                                                                              \
  X(layer_norm, LayerNorm)                                                                         \
  X(layer_norm_backward, LayerNormBackward)                                                        \
  /* attention */                                                                                  \
  X(attention, Attention)                                                                          \
  X(attention_backward, AttentionBackward)                                                         \
  /* rows */                                                                                       \
  X(embedding, Embedding)                                                                          \
  X(embedding_backward, EmbeddingBackward)                                                         \
  X(add, Add)                                                                                      \
  X(add_backward_rows, AddBackwardRows)                                                            \
  X(cast, Cast)                                                                                    \
  X(fill, Fill)                                                                                    \
  X(cache_write, CacheWrite)                                                                       \
  /* gated experts */                                                                              \
  X(gated_ffn, GatedFfn)                                                                           \
  X(gated_ffn_backward, GatedFfnBackward)                                                          \
  X(gated_ffn_hard, GatedFfnHard)                                                                  \
  X(gate_budget, GateBudget)                                                                       \
  /* losses */                                                                                     \
  X(distill_loss, DistillLoss)                                                                     \
  /* optimiser */                                                                                  \
  X(global_norm, GlobalNorm)                                                                       \
  X(adamw, AdamW)                                                                                  \
  /* audio */                                                                                      \
  X(log_mel, LogMel)                                                                               \
  X(mel_filters, MelFilters)                                                                       \
  X(resample, Resample)                                                                            \
  /* decoding */                                                                                   \
  X(top_k, TopK)                                                                                   \
  X(cache_reorder, CacheReorder)                                                                   \
  X(decoder_layer, DecoderLayer)                                                                   \
  /* randomness, as the other kernels draw it */                                                   \
  X(random_normal, Draw)                                                                           \
  X(random_uniform, Draw)
#define DW_OPS(X)                                                                                  \
  DW_DEVICE_OPS(X)                                                                                 \
  /* weights in int8, which only the processor reads */                                            \
  X(quantize, Quantize)
// clang-format on
