// The kernels of this plugin, DW_DEVICE_OPS (core/op_names.h): each puts its work on context.stream and returns.
#pragma once
#include "core/ops.h"
#include "runtime/context.h"

namespace dw {
namespace cuda {

DW_DEVICE_OPS(DW_DECLARE_KERNEL)

using Launch = void (*)(Context&, const Call&);

// All operations of the package, in its order.
int op_count();
const char* const* op_names();
const char* op_name(int op);
const uint8_t* op_present();
Launch launcher(int op);  // null: not here

}  // namespace cuda
}  // namespace dw
