// CUDA's errors as the package's.
#pragma once
#include <cuda_runtime_api.h>

#include <string>

#include "core/error.h"

namespace dw {
namespace cuda {

// "13.0" of 13000.
std::string version_text(int version);

// Why no device can be used at all, in a sentence, or "" when cudaGetDeviceCount succeeds; then *count is set.
std::string driver_problem(int* count);

// True for errors after which the context of the process is gone.
bool is_fatal(cudaError_t error);

}  // namespace cuda
}  // namespace dw
