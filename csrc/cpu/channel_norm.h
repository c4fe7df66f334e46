// What normalizes the channels of each pixel apart from the others: layer norm, local response norm, softmax,
// and vectors of length 1.
#pragma once

#include "common/epilogue.h"
#include "common/pixels.h"
#include "common/threads.h"
#include "cpu/isa.h"

namespace fastnets {

// The order is that of KINDS in fastnets/ops/channel_norm.py.
enum class ChannelNorm : int32_t {
  layer,           // (x - mean) / sqrt(variance + epsilon) * scale + shift
  local_response,  // x / (offset + factor / window * sum of x^2 over the window)^power
  softmax,
  unit,  // x / max(|x|, epsilon)
};

struct ChannelNormCall {
  ConstAnyPixels x;
  AnyPixels y;  // of the elements of x
  ChannelNorm kind;
  float epsilon;
  int64_t window;  // of local response: window / 2 channels before, (window - 1) / 2 after
  float factor, power, offset;
  Epilogue epilogue;  // scale and shift: layer only; no residual
};

// `scratch` holds channel_norm_scratch(call, threads) bytes.
FASTNETS_DECLARE(int64_t, channel_norm_scratch, (const ChannelNormCall& call, int threads));
FASTNETS_DECLARE(void, channel_norm, (const ChannelNormCall& call, void* scratch, ThreadContext& context));

}  // namespace fastnets
