// One decoder layer of a token by token decoding, out of the kernels that a backend has for its parts: one call instead
// of fifteen, because at a row or two the calls cost as much as their arithmetic. D width, S rows of the encoder.
//   h = x + W_o·attention(q, K, V) + b_o      (q, k, v) = W·norm(x) + b;  k, v go behind the keys and values so far
//   h = h + W_o·attention(q, M_k, M_v) + b_o  q = W·norm(h) + b;          M: of the encoder's output, all of it
//   y = h + FFN(norm(h))                      the shared FFN, or of a row whose gate is 1 its language's
// Sequences that hear the same (the beams of an utterance) stand behind one another and share an item of M.
#pragma once
#include <initializer_list>

#include "core/call.h"
#include "ops/position.h"

namespace dw {

struct DecoderLayer {
  // Positions in call.in; a matrix is followed by its bias, a norm's weight by its own.
  enum : size_t {
    kX,
    kNorm,
    kQ = kNorm + 2,
    kK = kQ + 2,
    kV,
    kOut = kV + 2,
    kKeys = kOut + 2,
    kValues,
    kCrossNorm,
    kCrossQ = kCrossNorm + 2,
    kCrossOut = kCrossQ + 2,
    kCrossKeys = kCrossOut + 2,
    kCrossValues,
    kFfnNorm,
    kFc1 = kFfnNorm + 2,
    kFc2 = kFc1 + 2,
    kExperts = kFc2 + 2,
  };
  const Call& call;
  const size_t settings;  // in call.num, behind the ranges of the languages
  const int64_t batch, tokens, width;

  explicit DecoderLayer(const Call& c)
      : call(c),
        settings(size_t(1 + 2 * c.integer(0))),
        batch(c.in[kX].shape[0]),
        tokens(c.in[kX].shape[1]),
        width(c.in[kX].shape[2]) {}
  int64_t heads() const { return call.integer(settings); }
  int64_t offset() const { return call.integer(settings + 1); }
  size_t experts_end() const { return kExperts + 7 * size_t(call.integer(0)); }
  View position() const { return call.in.size() > experts_end() ? call.in[experts_end()] : View(); }
  double epsilon() const { return call.num[settings + 2]; }
  DType compute() const { return DType(call.integer(settings + 3)); }
};

// The parts as a backend has them.
template <class Context>
struct DecoderParts {
  using Run = void (*)(Context&, const Call&);
  Run layer_norm, linear, cache_write, attention, gated_ffn_hard;
  // Its cache_write and attention take `position` as one tensor more: only they can read it.
  bool reads_position;
  // Several linear layers of the same rows at once, if it can.
  void (*linears)(Context&, std::initializer_list<const Call*>) = nullptr;
};

// `Frame` hands out scratch memory of the backend.
template <class Context, class Frame>
void run_decoder_layer(Context& context, Frame& frame, const DecoderParts<Context>& parts, const Call& call) {
  using L = DecoderLayer;
  const L layer(call);
  const int64_t rows = layer.batch * layer.tokens;
  const View position = parts.reads_position ? layer.position() : View();
  const int64_t offset =
      parts.reads_position ? layer.offset() : offset_at(layer.position(), layer.offset(), "decoder_layer");
  const auto scratch = [&](DType type, std::initializer_list<int64_t> shape) {
    View v;
    v.present = true;
    v.dtype = type;
    for (int64_t n : shape) v.shape[v.rank++] = n;
    v.data = frame.template take<char>(v.bytes());
    return v;
  };
  const auto rows_of = [&](DType type) { return scratch(type, {layer.batch, layer.tokens, layer.width}); };
  // A call on tensors of this one (by position) and on others.
  struct Part : Call {
    const Call& whole;
    explicit Part(const Call& c) : whole(c) {}
    void add(const View& v) {
      in.push_back(v);
      storage.emplace_back();
    }
    void add(size_t first, size_t count = 1) {
      for (size_t i = first; i < first + count; i++) {
        in.push_back(whole.in[i]);
        storage.push_back(whole.storage.empty() ? nullptr : whole.storage[i]);  // a device's calls have none
      }
    }
  };
  const auto norm = [&](const View& x, size_t weight) {
    Part part(call);
    part.add(x);
    part.add(weight, 2);
    part.out = {rows_of(layer.compute()), scratch(DType::f32, {rows}), scratch(DType::f32, {rows})};
    part.num = {layer.epsilon(), double(int(layer.compute()))};
    parts.layer_norm(context, part);
    return part.out[0];
  };
  const auto linear_call = [&](const View& x, size_t weight, bool bias, const View& residual) {
    const DType out = residual ? DType::f32 : layer.compute();
    Part part(call);
    part.add(x);
    part.add(weight);
    if (bias)
      part.add(weight + 1);
    else
      part.add(View());
    part.add(residual);
    part.out = {rows_of(out)};
    part.num = {0, 0, double(int(layer.compute())), double(int(out))};
    return part;
  };
  const auto linear = [&](const View& x, size_t weight, bool bias, const View& residual) {
    const Part part = linear_call(x, weight, bias, residual);
    parts.linear(context, part);
    return part.out[0];
  };
  const auto attention = [&](View q, size_t keys, bool causal, int64_t count, int64_t offset) {
    // The rows that share an item's keys are its queries.
    q.shape[0] = call.in[keys].shape[0];
    q.shape[1] = rows / q.shape[0];
    Part part(call);
    part.add(q);
    part.add(keys, 2);
    if (position && causal) part.add(position);
    part.out = {scratch(layer.compute(), {q.shape[0], q.shape[1], layer.width}),
                scratch(DType::f32, {q.shape[0], layer.heads(), q.shape[1]})};
    part.num = {double(layer.heads()), causal ? 1.0 : 0.0, double(count), double(offset), double(int(layer.compute()))};
    parts.attention(context, part);
    return part.out[0];
  };
  const auto keep = [&](const View& x, size_t cache) {
    Part part(call);
    part.add(x);
    part.add(cache);
    if (position) part.add(position);
    part.num = {double(offset)};
    parts.cache_write(context, part);
  };

  const View none, &x = call.in[L::kX];
  const View h = norm(x, L::kNorm);
  const Part q = linear_call(h, L::kQ, true, none), k = linear_call(h, L::kK, false, none),
             v = linear_call(h, L::kV, true, none);
  if (parts.linears)
    parts.linears(context, {&q, &k, &v});
  else
    for (const Part* part : {&q, &k, &v}) parts.linear(context, *part);
  keep(k.out[0], L::kKeys);
  keep(v.out[0], L::kValues);
  const View o = attention(q.out[0], L::kKeys, true, offset + layer.tokens, offset);
  const View heard = linear(o, L::kOut, true, x);
  const View cross = linear(norm(heard, L::kCrossNorm), L::kCrossQ, true, none);
  const View seen =
      linear(attention(cross, L::kCrossKeys, false, call.in[L::kCrossKeys].shape[1], 0), L::kCrossOut, true, heard);

  Part ffn(call);
  ffn.add(norm(seen, L::kFfnNorm));
  ffn.add(seen);
  ffn.add(L::kFc1, layer.experts_end() - L::kFc1);
  ffn.out = call.out;
  ffn.num.assign(call.num.begin(), call.num.begin() + std::ptrdiff_t(layer.settings));
  ffn.num.push_back(double(int(layer.compute())));
  ffn.num.push_back(double(int(DType::f32)));
  parts.gated_ffn_hard(context, ffn);
}

}  // namespace dw
