// A decoder layer out of the kernels that a backend has for its parts.
#pragma once
#include <initializer_list>

#include "ops/attention.h"
#include "ops/decoder_layer.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "ops/position.h"
#include "ops/rows.h"

namespace dw {

// The parts as a backend has them.
template <class Context>
struct DecoderParts {
  void (*layer_norm)(Context&, const LayerNorm&);
  void (*linear)(Context&, const Linear&);
  void (*cache_write)(Context&, const CacheWrite&);
  void (*attention)(Context&, const Attention&);
  void (*gated_ffn_hard)(Context&, const GatedFfnHard&);
  // Its cache_write and attention find the position in its tensor: only they can read it.
  bool reads_position;
  // Several linear layers of the same rows at once, if it can.
  void (*linears)(Context&, std::initializer_list<const Linear*>) = nullptr;
};

// `Frame` hands out scratch memory of the backend.
template <class Context, class Frame>
void run_decoder_layer(Context& context, Frame& frame, const DecoderParts<Context>& parts, const DecoderLayer& layer) {
  if (layer.x.size() == 0) return;
  const Prepare::Take take = [&frame](int64_t bytes) { return frame.template take<char>(bytes); };
  const View position = parts.reads_position ? layer.position : View();
  const int64_t offset = parts.reads_position ? layer.offset : offset_at(layer.position, layer.offset, "decoder_layer");

  const auto norm = [&](const View& x, const DecoderLayer::Norm& n) {
    LayerNorm part;
    part.x = x, part.weight = n.weight, part.bias = n.bias;
    part.epsilon = layer.epsilon, part.type = layer.compute;
    complete("layer_norm", part, take);
    parts.layer_norm(context, part);
    return part.y;
  };
  const auto prepared = [&](const View& x, const DecoderLayer::Square& s, const View& residual) {
    Linear part;
    part.x = x, part.weight = s.weight, part.bias = s.bias, part.residual = residual;
    part.compute = layer.compute, part.type = residual ? DType::f32 : layer.compute;
    complete("linear", part, take);
    return part;
  };
  const auto linear = [&](const View& x, const DecoderLayer::Square& s, const View& residual) {
    const Linear part = prepared(x, s, residual);
    parts.linear(context, part);
    return part.y;
  };
  const auto attention = [&](const View& q, const View& k, const View& v, bool causal, int64_t count) {
    Attention part;
    part.q = q, part.k = k, part.v = v;
    // The rows that share an item's keys are its queries.
    part.q.shape[0] = k.shape[0];
    part.q.shape[1] = layer.batch() * layer.tokens() / k.shape[0];
    if (causal) part.position = position, part.q_offset = offset;
    part.heads = layer.heads, part.causal = causal, part.kv_len = count, part.type = layer.compute;
    complete("attention", part, take);
    parts.attention(context, part);
    for (int d = 0; d < 2; d++) part.o.shape[d] = layer.x.shape[d];
    return part.o;
  };
  const auto keep = [&](const View& x, const View& cache) {
    CacheWrite part;
    part.x = x, part.cache = cache, part.position = position, part.offset = offset;
    complete("cache_write", part, take);
    parts.cache_write(context, part);
  };

  const View none, h = norm(layer.x, layer.norm);
  const Linear q = prepared(h, layer.q, none), k = prepared(h, layer.k, none), v = prepared(h, layer.v, none);
  if (parts.linears)
    parts.linears(context, {&q, &k, &v});
  else
    for (const Linear* part : {&q, &k, &v}) parts.linear(context, *part);
  keep(k.y, layer.keys);
  keep(v.y, layer.values);
  const View o = attention(q.y, layer.keys, layer.values, true, offset + layer.tokens());
  const View heard = linear(o, layer.out, layer.x);
  const View cross = linear(norm(heard, layer.cross_norm), layer.cross_q, none);
  const View seen = linear(attention(cross, layer.cross_keys, layer.cross_values, false, layer.cross_keys.shape[1]),
                           layer.cross_out, heard);

  GatedFfnHard ffn;
  ffn.x = norm(seen, layer.ffn_norm), ffn.residual = seen;
  ffn.shared = layer.shared, ffn.experts = layer.experts;
  ffn.compute = layer.compute, ffn.type = DType::f32;
  ffn.y = layer.y, ffn.g = layer.g;
  complete("gated_ffn_hard", ffn, take);
  parts.gated_ffn_hard(context, ffn);
}

}  // namespace dw
