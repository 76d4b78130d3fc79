// A decoder layer, of its parts; the formulas stand in ops/decoder_layer.h.
#include "ops/decoder_layer.h"

#include "core/ops.h"

namespace dw {
namespace reference {

void decoder_layer(Context& context, const Call& call) {
  if (call.in[0].size() == 0) return;
  static const DecoderParts<Context> parts = {layer_norm, linear, cache_write, attention, gated_ffn_hard, false};
  Workspace::Frame frame(context.workspace);
  run_decoder_layer(context, frame, parts, call);
}

}  // namespace reference
}  // namespace dw
