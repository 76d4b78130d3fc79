// A decoder layer, of its parts; the formulas stand in ops/decoder_layer.h.
#include "cpu/isa.h"
#include "cpu/linear.h"
#include "ops/decoder_parts.h"

namespace dw {
namespace cpu {
namespace DW_ISA {

void decoder_layer(Context& context, const DecoderLayer& layer) {
  static const DecoderParts<Context> parts = {layer_norm,     linear, cache_write, attention,
                                              gated_ffn_hard, false,  linears};
  Workspace::Frame frame(context.workspace);
  run_decoder_layer(context, frame, parts, layer);
}

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
