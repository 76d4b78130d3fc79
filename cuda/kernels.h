// The operations that this plugin has kernels for. To add one: a word here and a function of that name in a .cu file:
//   void name(Context& context, const Call& call)   puts the kernels of ops::name (native/ops) on context.stream
#pragma once
#include "context.h"
#include "core/call.h"

// clang-format off
#define DW_CUDA_OPS(X)                                                                             \
  X(cast) X(fill) X(add) X(gelu_backward) X(cache_write) X(random_normal) X(random_uniform)          \
  X(linear) X(linear_backward_input) X(linear_backward_weight) X(unfold) X(fold)                   \
  X(layer_norm) X(layer_norm_backward) X(embedding) X(embedding_backward) X(add_backward_rows)        \
  X(global_norm) X(adamw) X(top_k) X(log_mel) X(mel_filters) X(resample)                             \
  X(attention) X(attention_backward)                                                               \
  X(gated_ffn) X(gated_ffn_backward) X(gated_ffn_hard) X(gate_budget)                              \
  X(distill_loss) X(decoder_layer) X(cache_reorder)
// clang-format on

namespace dw {
namespace cuda {

#define DW_DECLARE(name) void name(Context&, const Call&);
DW_CUDA_OPS(DW_DECLARE)
#undef DW_DECLARE

using Launch = void (*)(Context&, const Call&);

// All operations of the package, in its order (core/op_names.h).
int op_count();
const char* const* op_names();
const char* op_name(int op);
const uint8_t* op_present();
Launch launcher(int op);  // null: not here

}  // namespace cuda
}  // namespace dw
