// Which Philox stream (`op` of core/philox.h) kernels draw from for what: two draws of one seed and step never share one.
// lib/random/streams.ts says the same, and what TypeScript draws; a test holds the two equal.
#pragma once
#include <cstdint>

namespace dw {

// Of one layer's gated FFN, from the layer's first stream on.
constexpr uint32_t kGateNoise = 0, kGateMask = 1, kExpertMask = 2;

}  // namespace dw
