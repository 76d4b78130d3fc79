// A decoder layer, of its parts; the formulas stand in ops/decoder_layer.h.
#include "ops/decoder_layer.h"

#include "cpu/isa.h"
#include "cpu/linear.h"

namespace dw {
namespace cpu {
namespace DW_ISA {

void decoder_layer(Context& context, const Call& call) {
  if (call.in[0].size() == 0) return;
  static const DecoderParts<Context> parts = {layer_norm,     linear, cache_write, attention,
                                              gated_ffn_hard, false,  linears};
  Workspace::Frame frame(context.workspace);
  run_decoder_layer(context, frame, parts, call);
}

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
