// A decoder layer, of its parts; the formulas stand in ops/decoder_layer.h.
#include "kernels.h"
#include "ops/decoder_parts.h"

namespace dw {
namespace cuda {

void decoder_layer(Context& context, const DecoderLayer& layer) {
  static const DecoderParts<Context> parts = {layer_norm, linear, cache_write, attention, gated_ffn_hard, true};
  Workspace::Frame frame(context.workspace);
  run_decoder_layer(context, frame, parts, layer);
}

}  // namespace cuda
}  // namespace dw
