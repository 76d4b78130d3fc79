// Draws element by element, as core/philox.h defines them: normal_at(i), uniform_at(i). → [count].
#include "ops/random.h"

#include "core/philox.h"
#include "reference/kernels.h"

namespace dw {
namespace reference {

void random_normal(Context&, const Draw& q) {
  for (int64_t i = 0; i < q.count; i++) store(q.values, i, normal_at(uint64_t(i), q.step, q.op, q.seed));
}

void random_uniform(Context&, const Draw& q) {
  for (int64_t i = 0; i < q.count; i++) store(q.values, i, uniform_at(uint64_t(i), q.step, q.op, q.seed));
}

}  // namespace reference
}  // namespace dw
