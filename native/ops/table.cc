#include <type_traits>

#include "core/ops.h"
#include "ops/all.h"

namespace dw {

namespace {

template <class Op>
void prepare(Prepare& p) {
  Op op;
  op.declare(p);
  p.finish();
}

template <class Op, class = void>
struct Counts : std::false_type {};
template <class Op>
struct Counts<Op, decltype(std::declval<const Op&>().count(std::declval<Count&>()))> : std::true_type {};

// Of any operation: its tensors are moved once.
Work moved(const Call& call) {
  Work work;
  for (const View& v : call.in) work.bytes += Count::bytes(v);
  for (const View& v : call.out) work.bytes += Count::bytes(v);
  const View* first = !call.in.empty() && call.in.front() ? &call.in.front()
                      : call.out.empty()                  ? nullptr
                                                          : &call.out.front();
  if (first) {
    work.type = first->dtype;
    work.rank = first->rank;
    for (int d = 0; d < first->rank; d++) work.shape[d] = first->shape[d];
  }
  return work;
}

template <class Op>
Work work(const char* name, const Call& call, bool readable) {
  Count c{moved(call), readable};
  if constexpr (Counts<Op>::value) read<Op>(name, call).count(c);
  return c.work;
}

}  // namespace

#define DW_ENTRY(name, Op) \
  {#name, prepare<Op>, [](const Call& call, bool readable) { return work<Op>(#name, call, readable); }},
const OpEntry kOps[] = {DW_OPS(DW_ENTRY)};
const int kOpCount = int(sizeof(kOps) / sizeof(kOps[0]));

}  // namespace dw
