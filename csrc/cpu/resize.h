// Resampling by two weighted positions along each axis: nearest and linear interpolation.
#pragma once

#include "common/pixels.h"
#include "common/threads.h"
#include "cpu/isa.h"

namespace fastnets {

// Along one axis, output i is (1 - weight[i]) * x[low[i]] + weight[i] * x[high[i]]; without weights,
// x[low[i]].
struct ResizeAxis {
  const int64_t* low;
  const int64_t* high;
  const float* weight;
};

struct ResizeCall {
  ConstAnyPixels x;
  AnyPixels y;         // of the elements of x
  ResizeAxis axes[3];  // z, y, x
};

// `scratch` holds resize_scratch(call, threads) bytes.
FASTNETS_DECLARE(int64_t, resize_scratch, (const ResizeCall& call, int threads));
FASTNETS_DECLARE(void, resize, (const ResizeCall& call, void* scratch, ThreadContext& context));

}  // namespace fastnets
