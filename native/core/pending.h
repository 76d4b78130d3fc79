// Operations of the table whose kernels are not merged yet: a line less with every merge.
#pragma once
// clang-format off
#define DW_PENDING(X)
// clang-format on
