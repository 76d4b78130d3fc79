#include "kernels.h"

#include "ops/all.h"

namespace dw {
namespace cuda {

namespace {

#define DW_NAME(name, Op) #name,
const char* const kNames[] = {DW_OPS(DW_NAME)};
#undef DW_NAME
constexpr int kCount = int(sizeof kNames / sizeof kNames[0]);

// Those that are not here stand behind the others.
const Launch kLaunch[kCount] = {DW_DEVICE_OPS(DW_KERNEL)};
#define DW_PRESENT(name, Op) 1,
const uint8_t kPresent[kCount] = {DW_DEVICE_OPS(DW_PRESENT)};
#undef DW_PRESENT

}  // namespace

int op_count() { return kCount; }
const char* const* op_names() { return kNames; }
const char* op_name(int op) { return kNames[op]; }
const uint8_t* op_present() { return kPresent; }
Launch launcher(int op) { return kLaunch[op]; }

}  // namespace cuda
}  // namespace dw
