// The part of cuBLASLt that gemm.cu uses, declared here and found at run time: its headers and library need not be
// there when the plugin is built. Values and layouts are those of cuBLAS 12 and 13.
#pragma once
#include <cuda_runtime_api.h>
#include <library_types.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace dw {
namespace cuda {

using LtHandle = struct LtContextOpaque*;
using LtMatmulDesc = struct LtMatmulDescOpaque*;
using LtLayout = struct LtLayoutOpaque*;
using LtPreference = struct LtPreferenceOpaque*;
using LtStatus = int;  // 0 is success

struct LtAlgo {
  uint64_t data[8];
};
struct LtHeuristic {
  LtAlgo algo;
  size_t workspace_size;
  LtStatus state;
  float waves;
  int reserved[4];
};

enum : int {
  kLtOpN = 0,
  kLtOpT = 1,
  kLtCompute32F = 68,
  kLtDescTransA = 3,
  kLtDescTransB = 4,
  kLtDescEpilogue = 7,
  kLtDescBiasPointer = 8,
  kLtDescBiasType = 26,
  kLtEpilogueDefault = 1,
  kLtEpilogueBias = 4,
  kLtLayoutBatchCount = 5,
  kLtLayoutBatchStride = 6,
  kLtPreferenceWorkspace = 1,
  kLtPreferenceAlignA = 5,  // then B, C, D
};

struct CublasLt {
  std::string path;
  size_t version;  // 130001 is 13.0.1

  size_t (*get_version)();
  const char* (*status_string)(LtStatus);
  LtStatus (*create)(LtHandle*);
  LtStatus (*destroy)(LtHandle);
  LtStatus (*desc_create)(LtMatmulDesc*, int compute_type, cudaDataType_t scale_type);
  LtStatus (*desc_destroy)(LtMatmulDesc);
  LtStatus (*desc_set)(LtMatmulDesc, int attribute, const void* value, size_t size);
  LtStatus (*layout_create)(LtLayout*, cudaDataType_t type, uint64_t rows, uint64_t columns, int64_t ld);
  LtStatus (*layout_destroy)(LtLayout);
  LtStatus (*layout_set)(LtLayout, int attribute, const void* value, size_t size);
  LtStatus (*preference_create)(LtPreference*);
  LtStatus (*preference_destroy)(LtPreference);
  LtStatus (*preference_set)(LtPreference, int attribute, const void* value, size_t size);
  LtStatus (*heuristic)(LtHandle, LtMatmulDesc, LtLayout a, LtLayout b, LtLayout c, LtLayout d, LtPreference,
                        int wanted, LtHeuristic* results, int* found);
  LtStatus (*matmul)(LtHandle, LtMatmulDesc, const void* alpha, const void* a, LtLayout, const void* b, LtLayout,
                     const void* beta, const void* c, LtLayout, void* d, LtLayout, const LtAlgo*, void* workspace,
                     size_t workspace_size, cudaStream_t);
};

// The library, searched for once: in DISTILWHISPER_CUDA_LIBS (folders, and then nowhere else), where the dynamic loader
// looks, in pip and conda installs, in /usr/local/cuda*. Null when there is none; then cublaslt_problem() says so.
const CublasLt* cublaslt();
const std::string& cublaslt_problem();

}  // namespace cuda
}  // namespace dw
