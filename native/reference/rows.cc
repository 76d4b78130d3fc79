// embedding           y[b, t] = table[ids[b, t]] + positions[offset + t]
// embedding_backward  dtable[ids[b, t]] += dy[b, t] unless ids[b, t] = padding;   dpositions[offset + t] += dy[b, t]
// add                 y = alpha · a + beta · b (b repeats)
// add_backward_rows   dpositions[t] += Σ_b dy[b, t]
// cast                y = x
// fill                x = value
// cache_write         cache[b, offset + t] = x[b, t]
#include "ops/rows.h"

#include "ops/ids.h"
#include "ops/position.h"
#include "reference/kernels.h"

namespace dw {
namespace reference {

void embedding(Context&, const Embedding& q) {
  const View &ids = q.ids, &table = q.table;
  const int64_t T = ids.shape[1], D = table.shape[1];
  const int64_t offset = offset_at(q.position, q.offset, "embedding");
  check_ids(ids, table.shape[0], -1, "embedding");
  for (int64_t i = 0; i < ids.size(); i++) {
    const int64_t id = ids.as<int32_t>()[i];
    for (int64_t c = 0; c < D; c++)
      store(q.y, i * D + c, load(table, id * D + c) + load(q.positions, (offset + i % T) * D + c));
  }
}

void embedding_backward(Context&, const EmbeddingBackward& q) {
  const View &dy = q.dy, &ids = q.ids, &dtable = q.dtable, &dpositions = q.dpositions;
  const int64_t T = dy.shape[1], D = dy.shape[2], offset = q.offset, padding = q.padding;
  std::vector<double> table(dtable ? size_t(dtable.size()) : 0), positions(dpositions ? size_t(dpositions.size()) : 0);
  for (size_t i = 0; i < table.size(); i++) table[i] = load(dtable, int64_t(i));
  for (size_t i = 0; i < positions.size(); i++) positions[i] = load(dpositions, int64_t(i));
  if (dtable) check_ids(ids, dtable.shape[0], padding, "embedding_backward");
  for (int64_t i = 0; i < ids.size(); i++)
    for (int64_t c = 0; c < D; c++) {
      if (dtable && ids.as<int32_t>()[i] != padding) table[ids.as<int32_t>()[i] * D + c] += load(dy, i * D + c);
      if (dpositions) positions[(offset + i % T) * D + c] += load(dy, i * D + c);
    }
  for (size_t i = 0; i < table.size(); i++) store(dtable, int64_t(i), table[i]);
  for (size_t i = 0; i < positions.size(); i++) store(dpositions, int64_t(i), positions[i]);
}

void add(Context&, const Add& q) {
  const View &a = q.a, &b = q.b;
  for (int64_t i = 0, n = a.size(), m = b.size(); i < n; i++)
    store(q.y, i, q.alpha * load(a, i) + q.beta * load(b, i % m));
}

void add_backward_rows(Context&, const AddBackwardRows& q) {
  const View &dy = q.dy, &dpositions = q.dpositions;
  for (int64_t i = 0, n = dpositions.size(); i < n; i++) {
    double sum = load(dpositions, i);
    for (int64_t b = 0; b < dy.shape[0]; b++) sum += load(dy, b * n + i);
    store(dpositions, i, sum);
  }
}

void cast(Context&, const Cast& q) {
  for (int64_t i = 0, n = q.x.size(); i < n; i++) store(q.y, i, load(q.x, i));
}

void fill(Context&, const Fill& q) {
  for (int64_t i = 0, n = q.x.size(); i < n; i++) store(q.x, i, q.value);
}

void cache_write(Context&, const CacheWrite& q) {
  const View &x = q.x, &cache = q.cache;
  const int64_t B = x.shape[0], t = x.shape[1], D = x.shape[2], P = cache.shape[1];
  for (int64_t b = 0; b < B; b++)
    for (int64_t i = 0; i < t * D; i++) store(cache, (b * P + q.offset) * D + i, load(x, b * t * D + i));
}

}  // namespace reference
}  // namespace dw
