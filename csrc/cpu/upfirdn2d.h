// Upsampling by zeros, padding, correlation with a filter and downsampling of images.
#pragma once

#include "common/pixels.h"
#include "common/threads.h"
#include "cpu/isa.h"

namespace fastnets {

// Along each axis, output o is the sum over k of filter[k] * upsampled[o * down + k - pad], where upsampled
// has x[i] at i * up, and 0 elsewhere.
struct Upfirdn2dCall {
  ConstPixels x;
  Pixels y;
  const float* filter;                      // [taps[0]][taps[1]]; [taps[0]], for both axes, where separable
  int64_t taps[2], up[2], down[2], pad[2];  // y, x
  bool separable;
  float gain;
};

// `scratch` holds upfirdn2d_scratch(call, threads) bytes.
FASTNETS_DECLARE(int64_t, upfirdn2d_scratch, (const Upfirdn2dCall& call, int threads));
FASTNETS_DECLARE(void, upfirdn2d, (const Upfirdn2dCall& call, void* scratch, ThreadContext& context));

}  // namespace fastnets
