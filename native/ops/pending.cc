#include "core/pending.h"

#include "core/ops.h"

namespace dw {
#define DW_STUB_PREPARE(name) \
  void name(Prepare&) { throw Error("ERR_KERNEL", #name " is not built"); }
#define DW_STUB_RUN(name) \
  void name(Context&, const Call&) {}
namespace ops {
DW_PENDING(DW_STUB_PREPARE)
}
namespace reference {
DW_PENDING(DW_STUB_RUN)
}
}  // namespace dw
