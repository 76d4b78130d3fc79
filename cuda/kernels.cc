#include "kernels.h"

#include <cstring>

#include "core/op_names.h"

namespace dw {
namespace cuda {

namespace {

#define DW_NAME(name) #name,
const char* const kNames[] = {DW_OPS(DW_NAME)};
#undef DW_NAME
constexpr int kCount = int(sizeof kNames / sizeof kNames[0]);

struct Table {
  Launch launch[kCount] = {};
  uint8_t present[kCount] = {};
  void enter(const char* name, Launch f) {
    for (int op = 0; op < kCount; op++)
      if (std::strcmp(kNames[op], name) == 0) {
        launch[op] = f;
        present[op] = 1;
      }
  }
  Table() {
#define DW_ADD(name) enter(#name, name);
    DW_CUDA_OPS(DW_ADD)
#undef DW_ADD
  }
};

const Table& table() {
  static const Table t;
  return t;
}

}  // namespace

int op_count() { return kCount; }
const char* const* op_names() { return kNames; }
const char* op_name(int op) { return kNames[op]; }
const uint8_t* op_present() { return table().present; }
Launch launcher(int op) { return table().launch[op]; }

}  // namespace cuda
}  // namespace dw
