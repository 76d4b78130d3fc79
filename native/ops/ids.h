// Token ids are data: they can only be checked when a call runs.
#pragma once
#include "core/tensor.h"

namespace dw {

// Throws Error(ERR_ARGUMENT) when an id is outside [0, vocabulary) and is not `exempt` (-1: none).
void check_ids(const View& ids, int64_t vocabulary, int64_t exempt, const char* op);

}  // namespace dw
