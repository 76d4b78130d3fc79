// Every operation. To add x: a line in op_names.h, a struct of its arguments in native/ops (core/prepare.h), and a kernel
//   void x(Context&, const X&)
// of that name for the oracle (reference/kernels.h), for the processor (cpu/isa.h) and, in the plugin, for a device
// (cuda/kernels.h).
#pragma once
#include "core/op_names.h"
#include "core/prepare.h"
#include "core/work.h"

namespace dw {

#define DW_DECLARE_ARGUMENTS(name, Op) struct Op;
DW_OPS(DW_DECLARE_ARGUMENTS)
#undef DW_DECLARE_ARGUMENTS

// In the namespace of a backend: its kernels.
#define DW_DECLARE_KERNEL(name, Op) void name(Context&, const Op&);
// In a table of its kernels, all behind one type of function: each reads the arguments of its operation (which must be
// known: ops/all.h).
#define DW_KERNEL(name, Op) [](Context& context, const Call& call) { name(context, read<Op>(#name, call)); },

struct OpEntry {
  const char* name;
  // Checks a new call and states its outputs.
  void (*prepare)(Prepare&);
  // `readable`: the values of the call's tensors may be read here (they lie in the memory of the process and have been
  // computed), for what depends on them.
  Work (*work)(const Call&, bool readable);
};
extern const OpEntry kOps[];
extern const int kOpCount;

}  // namespace dw
