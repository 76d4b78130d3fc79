#include "core/pending.h"

#include "cpu/isa.h"

namespace dw {
namespace cpu {
namespace DW_ISA {
#define DW_STUB_RUN(name) \
  void name(Context&, const Call&) {}
DW_PENDING(DW_STUB_RUN)
}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
