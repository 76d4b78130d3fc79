// Every operation. To add one: a word in op_names.h and three functions of that name (see op.h).
#pragma once
#include "core/op.h"
#include "core/op_names.h"

#define DW_DECLARE_PREPARE(name) void name(Prepare&);
#define DW_DECLARE_RUN(name) void name(Context&, const Call&);

namespace dw {
namespace ops {
DW_OPS(DW_DECLARE_PREPARE)
}
namespace reference {
DW_OPS(DW_DECLARE_RUN)
}

struct OpEntry {
  const char* name;
  void (*prepare)(Prepare&);
};
extern const OpEntry kOps[];
extern const int kOpCount;
extern const RunFn kReferenceKernels[];

}  // namespace dw
