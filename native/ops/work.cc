#include "ops/work.h"

#include <cmath>
#include <initializer_list>

#include "core/audio.h"
#include "core/ops.h"
#include "ops/decoder_layer.h"
#include "ops/distill_loss.h"
#include "ops/gated_ffn.h"

namespace dw {

namespace {

struct Count {
  const Call& call;
  bool readable;
  Work work;

  void shape(std::initializer_list<int64_t> dims) {
    work.rank = 0;
    for (int64_t n : dims) work.shape[work.rank++] = n;
  }
  void type(size_t num) { work.type = DType(call.integer(num)); }
  // A tensor that is updated in place is read and written; once it has been counted with all others.
  void updated(size_t in) { work.bytes += bytes(in); }
  // Of tensor `in` only this share is touched.
  void only(size_t in, double share) { work.bytes -= bytes(in) * (1 - share); }
  double bytes(size_t in) const { return call.in[in] ? double(call.in[in].bytes()) : 0; }
};

// rows × inputs × outputs
double product(double m, double k, double n) { return 2 * m * k * n; }

void linear(Count& c) {
  const View &x = c.call.in[0], &w = c.call.in[1];
  c.work.flop = product(double(x.rows()), double(x.cols()), double(w.shape[0]));
  c.shape({x.rows(), x.cols(), w.shape[0]});
  c.type(2);
}

void linear_backward_input(Count& c) {
  const View &dy = c.call.in[0], &w = c.call.in[1];
  c.work.flop = product(double(dy.rows()), double(dy.cols()), double(w.shape[1]));
  c.shape({dy.rows(), dy.cols(), w.shape[1]});
  c.type(0);
}

void linear_backward_weight(Count& c) {
  const View &dy = c.call.in[0], &x = c.call.in[1];
  if (c.call.in[2]) c.work.flop = product(double(dy.cols()), double(dy.rows()), double(x.cols()));
  c.shape({dy.cols(), dy.rows(), x.cols()});
  c.type(1);
  c.updated(2);
  c.updated(3);
}

// Pairs of a query and a key that it sees, in one item and one head.
double pairs(double queries, double keys, bool causal, double offset) {
  if (!causal) return queries * keys;
  // Query i sees keys 0 to offset + i; from query `rising` on it sees all.
  const double rising = std::fmax(0, std::fmin(queries, keys - offset));
  return rising * (offset + (rising + 1) / 2) + (queries - rising) * keys;
}

// Scores and weighted sum: 2 products forward; 5 backward, which computes the scores again.
void attention(Count& c) {
  const View &q = c.call.in[0], &k = c.call.in[1];
  const int64_t keys = c.call.integer(2);
  c.work.flop = 2 * 2 * double(q.shape[0] * q.shape[2]) *
                pairs(double(q.shape[1]), double(keys), c.call.integer(1) != 0, double(c.call.integer(3)));
  c.shape({q.shape[0], q.shape[1], keys, q.shape[2]});
  c.work.type = q.dtype;
  // Of a cache only the keys and values so far.
  for (size_t i : {1, 2}) c.only(i, double(keys) / double(k.shape[1]));
}

void attention_backward(Count& c) {
  const View &q = c.call.in[0], &k = c.call.in[1];
  c.work.flop = 5 * 2 * double(q.shape[0] * q.shape[2]) *
                pairs(double(q.shape[1]), double(k.shape[1]), c.call.integer(1) != 0, 0);
  c.shape({q.shape[0], q.shape[1], k.shape[1], q.shape[2]});
  c.work.type = q.dtype;
}

// The rows that are looked up, not the table.
void embedding(Count& c) {
  const View &ids = c.call.in[0], &table = c.call.in[1], &positions = c.call.in[2];
  if (table.shape[0] > 0) c.only(1, double(ids.size()) / double(table.shape[0]));
  if (positions.shape[0] > 0) c.only(2, double(ids.shape[1]) / double(positions.shape[0]));
  c.shape({ids.shape[0], ids.shape[1], table.shape[1]});
  c.work.type = table.dtype;
}

void embedding_backward(Count& c) {
  const View &dy = c.call.in[0], &table = c.call.in[2], &positions = c.call.in[3];
  if (table && table.shape[0] > 0) c.only(2, 2 * double(dy.rows()) / double(table.shape[0]));
  if (positions && positions.shape[0] > 0) c.only(3, 2 * double(dy.shape[1]) / double(positions.shape[0]));
}

void cache_write(Count& c) { c.work.bytes = 2 * double(c.call.in[0].bytes()); }

// The positions in use, read and written, as if every row had another parent.
void cache_reorder(Count& c) {
  for (size_t i = 1; i < c.call.in.size(); i++)
    if (c.call.in[i].shape[1] > 0) c.only(i, 2 * c.call.num[0] / double(c.call.in[i].shape[1]));
}

void add_backward_rows(Count& c) { c.updated(1); }

void layer_norm_backward(Count& c) {
  c.updated(6);
  c.updated(7);
}

// Two products.
double ffn(double rows, const GatedFfn& f) { return 2 * product(rows, double(f.width), double(f.inner)); }

double gates(const GatedFfn& f) {
  return product(double(f.covered), double(f.width), double(f.gate)) + product(double(f.covered), double(f.gate), 1);
}

void gated_shape(Count& c, const GatedFfn& f, size_t compute) {
  c.shape({f.rows, f.width, f.inner});
  c.type(f.settings + compute);
}

// The shared FFN for all rows; the gate, and unless it is skipped the expert, for those of a language.
void gated_ffn(Count& c) {
  const GatedFfn f = gated_ffn_call(c.call);
  c.work.flop = ffn(double(f.rows), f) + gates(f) + (f.skip() ? 0 : ffn(double(f.covered), f));
  gated_shape(c, f, 7);
}

// The way back through all of that, and the gradients of the weights that train.
void gated_ffn_backward(Count& c) {
  const GatedFfn f = gated_ffn_backward_call(c.call);
  c.work.flop = ffn(double(f.rows), f);
  for (int64_t l = 0; l < f.languages; l++) {
    const double rows = double(f.end(l) - f.begin(l));
    const double gate = product(rows, double(f.gate), double(f.width));
    c.work.flop += gate;
    if (f.at(f.gradient(l, kGateInW))) c.work.flop += gate;
    if (!f.skip()) {
      c.work.flop += ffn(rows, f);
      for (size_t w : {kFc1W, kFc2W})
        if (f.at(f.gradient(l, w))) c.work.flop += ffn(rows, f) / 2;
    }
    for (size_t w = 0; w < kExpertTensors; w++) c.updated(f.gradient(l, w));
  }
  gated_shape(c, f, 7);
}

// A row runs one FFN, the one that its gate chose: the sum does not depend on which. Bytes are those of the shared FFN
// and of every expert, although one that no gate chose is not read.
void gated_ffn_hard(Count& c) {
  const GatedFfn f = gated_ffn_hard_call(c.call);
  c.work.flop = ffn(double(f.rows), f) + gates(f);
  gated_shape(c, f, 0);
}

// Six products of the width, attention to the tokens so far and to the encoder's rows, and an FFN a row.
void decoder_layer(Count& c) {
  const Call& call = c.call;
  const DecoderLayer layer(call);
  const View &fc1 = call.in[DecoderLayer::kFc1], &seen = call.in[DecoderLayer::kCrossKeys];
  const double rows = double(layer.batch * layer.tokens), width = double(layer.width);
  const double filled = double(layer.offset() + layer.tokens);
  c.work.flop = 6 * product(rows, width, width) + 2 * product(rows, width, double(fc1.shape[0]));
  c.work.flop += 4 * double(layer.batch) * width *
                 (pairs(double(layer.tokens), filled, true, double(layer.offset())) +
                  double(layer.tokens) * double(seen.shape[1]));
  for (int64_t l = 0; l < call.integer(0); l++) {
    const double gate = double(call.in[DecoderLayer::kExperts].shape[0]);
    c.work.flop += product(double(call.integer(size_t(2 + 2 * l)) - call.integer(size_t(1 + 2 * l))), width + 1, gate);
  }
  // Of a cache the rows so far, and the new ones once more.
  for (size_t cache : {DecoderLayer::kKeys, DecoderLayer::kValues})
    c.only(cache, (filled + double(layer.tokens)) / double(call.in[cache].shape[1]));
  c.shape({layer.batch, layer.tokens, seen.shape[1], layer.width});
  c.work.type = layer.compute();
}

// Logits of student and teacher and, with the gradient, the way back to the hidden rows and to the weight. Rows without
// a label count for nothing unless the divergence is taken over all; where labels cannot be read, all rows count.
void distill_loss(Count& c) {
  const Call& call = c.call;
  const View &hidden = call.in[0], &weight = call.in[1], &labels = call.in[2], &teacher = call.in[3];
  const bool all = call.num[5] != 0 && call.num[2] != 0, gradient = call.num[6] != 0;
  int64_t rows = hidden.shape[0];
  if (c.readable && !all) {
    rows = 0;
    for (int64_t r = 0; r < labels.size(); r++) rows += labels.as<int32_t>()[r] != kIgnored;
  }
  const double one = product(double(rows), double(weight.shape[1]), double(weight.shape[0]));
  c.work.flop = one * (1 + gradient + (gradient && call.in[5]));
  if (teacher) c.work.flop += product(double(rows), double(teacher.shape[1]), double(weight.shape[0]));
  c.shape({rows, weight.shape[1], weight.shape[0]});
  c.type(7);
  c.updated(5);
}

// Per group p, m and v are updated and the gradient is read. Step 0 leaves its group untouched.
void adamw(Count& c) {
  constexpr size_t kGroup = 4, kSteps = 7;
  int64_t elements = 0;
  for (size_t i = 1, group = 0; i < c.call.in.size(); i += kGroup, group++) {
    if (c.call.num[kSteps + group] == 0) {
      for (size_t tensor = 0; tensor < kGroup; tensor++) c.only(i + tensor, 0);
      continue;
    }
    for (size_t tensor : {0, 2, 3}) c.updated(i + tensor);
    elements += c.call.in[i].size();
  }
  c.shape({elements});
}

void global_norm(Count& c) {
  int64_t elements = 0;
  for (const View& g : c.call.in) elements += g.size();
  c.shape({elements});
}

// Of a frame the transform: 5/2·n·log2 n for n real points.
void log_mel(Count& c) {
  const View& features = c.call.out[0];
  c.work.flop = double(features.shape[1]) * 2.5 * kFft * std::log2(kFft);
  c.shape({features.shape[0], features.shape[1]});
}

// A product with every sample under the filter, which is as wide as the lower of the two rates makes it.
void resample(Count& c) {
  const double from = c.call.num[0], to = c.call.num[1];
  c.work.flop = product(double(c.call.out[0].size()), 2 * kSincHalf * std::fmax(1, from / to), 1);
}

struct Rule {
  const char* op;
  void (*count)(Count&);
};

// An operation without a rule moves its tensors once and computes no products.
const Rule kRules[] = {
    {"linear", linear},
    {"linear_backward_input", linear_backward_input},
    {"linear_backward_weight", linear_backward_weight},
    {"attention", attention},
    {"attention_backward", attention_backward},
    {"embedding", embedding},
    {"embedding_backward", embedding_backward},
    {"add_backward_rows", add_backward_rows},
    {"cache_write", cache_write},
    {"cache_reorder", cache_reorder},
    {"layer_norm_backward", layer_norm_backward},
    {"gated_ffn", gated_ffn},
    {"gated_ffn_backward", gated_ffn_backward},
    {"gated_ffn_hard", gated_ffn_hard},
    {"distill_loss", distill_loss},
    {"decoder_layer", decoder_layer},
    {"adamw", adamw},
    {"global_norm", global_norm},
    {"log_mel", log_mel},
    {"resample", resample},
};

using CountFn = void (*)(Count&);

const std::vector<CountFn>& rules() {
  static const std::vector<CountFn> table = [] {
    std::vector<CountFn> t(size_t(kOpCount), nullptr);
    for (int op = 0; op < kOpCount; op++)
      for (const Rule& rule : kRules)
        if (std::string(rule.op) == kOps[op].name) t[size_t(op)] = rule.count;
    return t;
  }();
  return table;
}

}  // namespace

Work work_of(int op, const Call& call, bool readable) {
  Count c{call, readable, {}};
  for (const View& v : call.in)
    if (v) c.work.bytes += double(v.bytes());
  for (const View& v : call.out) c.work.bytes += double(v.bytes());
  const View* first = !call.in.empty() && call.in[0] ? &call.in[0] : call.out.empty() ? nullptr : &call.out[0];
  if (first) {
    c.work.type = first->dtype;
    c.work.rank = first->rank;
    for (int d = 0; d < first->rank; d++) c.work.shape[d] = first->shape[d];
  }
  if (const CountFn rule = rules()[size_t(op)]) rule(c);
  return c.work;
}

}  // namespace dw
