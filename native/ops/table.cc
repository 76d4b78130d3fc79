#include "core/ops.h"

namespace dw {

#define DW_ENTRY(name) {#name, ops::name},
#define DW_REFERENCE(name) reference::name,
const OpEntry kOps[] = {DW_OPS(DW_ENTRY)};
const int kOpCount = int(sizeof(kOps) / sizeof(kOps[0]));
const RunFn kReferenceKernels[] = {DW_OPS(DW_REFERENCE)};

}  // namespace dw
