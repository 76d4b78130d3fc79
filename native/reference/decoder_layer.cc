// A decoder layer, of its parts; the formulas stand in ops/decoder_layer.h.
#include "ops/decoder_parts.h"
#include "reference/kernels.h"

namespace dw {
namespace reference {

void decoder_layer(Context& context, const DecoderLayer& layer) {
  static const DecoderParts<Context> parts = {layer_norm, linear, cache_write, attention, gated_ffn_hard, false};
  Workspace::Frame frame(context.workspace);
  run_decoder_layer(context, frame, parts, layer);
}

}  // namespace reference
}  // namespace dw
