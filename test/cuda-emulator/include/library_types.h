#pragma once
enum cudaDataType_t : int { CUDA_R_32F = 0, CUDA_R_16BF = 14 };
