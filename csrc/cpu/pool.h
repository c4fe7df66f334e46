// Maximum or average over windows, and over whole images.
#pragma once

#include "common/pixels.h"
#include "common/threads.h"
#include "cpu/isa.h"

namespace fastnets {

struct PoolCall {
  ConstAnyPixels x;
  AnyPixels y;  // of the elements of x
  int64_t window[3], stride[3], pad[3], dilation[3];
  bool average;
  bool count_pad;  // whether an average counts the padding, but not what ceil mode adds beyond it
  float divisor;   // of an average; 0: what the window counts
  bool adaptive;   // the windows share the image among the results, as equally as whole pixels can
};

FASTNETS_DECLARE(void, pool, (const PoolCall& call, ThreadContext& context));

// The window is the whole image. `scratch` holds pool_global_scratch(call) bytes.
FASTNETS_DECLARE(int64_t, pool_global_scratch, (const PoolCall& call));
FASTNETS_DECLARE(void, pool_global, (const PoolCall& call, void* scratch, ThreadContext& context));

}  // namespace fastnets
