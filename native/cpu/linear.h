// Linear layers of the same rows.
#pragma once
#include <initializer_list>

#include "core/context.h"
#include "ops/linear.h"

namespace dw {
namespace cpu {
namespace DW_ISA {

// Layers whose x and compute are the same, in one pass over their weights where the rows are few.
void linears(Context& ctx, std::initializer_list<const Linear*> layers);

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
