// Draws element by element, as core/philox.h defines them: normal_at(i), uniform_at(i). → [count].
#include "core/ops.h"
#include "core/philox.h"

namespace dw {
namespace reference {

void random_normal(Context&, const Call& c) {
  for (int64_t i = 0; i < c.out[0].size(); i++)
    store(c.out[0], i, normal_at(uint64_t(i), uint32_t(c.num[2]), uint32_t(c.num[3]), uint64_t(c.num[1])));
}

void random_uniform(Context&, const Call& c) {
  for (int64_t i = 0; i < c.out[0].size(); i++)
    store(c.out[0], i, uniform_at(uint64_t(i), uint32_t(c.num[2]), uint32_t(c.num[3]), uint64_t(c.num[1])));
}

}  // namespace reference
}  // namespace dw
