// top_k: z = logits with the suppressed ids at -inf; lse = log Σ e^z; the k best of z by (value descending, id
// ascending), values z - lse (-inf when z is). [R, V] → [R, k], [R, k], [R].
// With allowed = (a0, a1, a2, a3) of a row only the ids of [a0, a1) and [a2, a3) stay in z, and only the second range's
// where its Σ e^z is above every e^z of the first: the rules of timestamps (whisper/decoding.py, ApplyTimestampRules).
// cache_reorder: cache[b·K + k, i] = what was cache[b·K + parents[b, k], i], i < count.
#include "ops/decode.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/decode.h"
#include "reference/kernels.h"

namespace dw {
namespace reference {

static double largest(const double* from, const double* to) {
  return from == to ? -INFINITY : *std::max_element(from, to);
}

static double log_sum_exp(const double* from, const double* to) {
  const double top = largest(from, to);
  if (top == -INFINITY) return top;
  double sum = 0;
  for (const double* x = from; x < to; x++) sum += std::exp(*x - top);
  return top + std::log(sum);
}

void top_k(Context&, const TopK& q) {
  const View &logits = q.logits, &suppress = q.suppress, &allowed = q.allowed;
  const int64_t rows = logits.shape[0], columns = logits.shape[1], k = q.k;
  for (int64_t row = 0; allowed && row < rows; row++) check_allowed(allowed.as<int32_t>() + 4 * row, columns, row);
  for (int64_t row = 0; row < rows; row++) {
    std::vector<double> z(size_t(columns), 0.0);
    for (int64_t i = 0; i < columns; i++) z[size_t(i)] = load(logits, row * columns + i);
    for (int64_t s = 0; suppress && s < suppress.size(); s++) {
      const int64_t id = suppress.as<int32_t>()[s];
      check_suppressed(id, columns);
      z[size_t(id)] = -INFINITY;
    }
    const auto hide = [&](int64_t from, int64_t to) { std::fill(z.begin() + from, z.begin() + to, -INFINITY); };
    const int32_t* a = allowed ? allowed.as<int32_t>() + 4 * row : nullptr;
    if (a) {
      hide(0, a[0]);
      hide(a[1], a[2]);
      hide(a[3], columns);
    }
    for (double x : z)
      if (!(x < INFINITY)) fail_logits(row);
    if (a && log_sum_exp(&z[0] + a[2], &z[0] + a[3]) > largest(&z[0] + a[0], &z[0] + a[1])) hide(a[0], a[1]);
    const double lse = log_sum_exp(&z[0], &z[0] + columns);
    std::vector<int32_t> order(static_cast<size_t>(columns));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return z[size_t(a)] > z[size_t(b)]; });
    for (int64_t j = 0; j < k; j++) {
      const int32_t id = order[size_t(j)];
      store(q.values, row * k + j, z[size_t(id)] == -INFINITY ? -INFINITY : z[size_t(id)] - lse);
      q.ids.as<int32_t>()[row * k + j] = id;
    }
    store(q.logsumexp, row, lse);
  }
}

void cache_reorder(Context&, const CacheReorder& q) {
  const View& parents = q.parents;
  const int64_t beams = parents.shape[1];
  for (int64_t i = 0; i < parents.size(); i++) check_parent(parents.as<int32_t>()[i], beams, i);
  for (const View& cache : q.caches) {
    const int64_t row = cache.shape[1] * cache.shape[2], used = q.positions * cache.shape[2];
    std::vector<double> was(size_t(cache.size()));
    for (int64_t i = 0; i < cache.size(); i++) was[size_t(i)] = load(cache, i);
    for (int64_t n = 0; n < parents.size(); n++)
      for (int64_t i = 0; i < used; i++)
        store(cache, n * row + i, was[size_t((n / beams * beams + parents.as<int32_t>()[n]) * row + i)]);
  }
}

}  // namespace reference
}  // namespace dw
