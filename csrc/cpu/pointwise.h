// y = activation(x) on one contiguous run of floats.
#pragma once

#include "common/epilogue.h"
#include "common/threads.h"
#include "cpu/isa.h"

namespace fastnets {

struct PointwiseCall {
  const float* x;
  float* y;  // may be x
  int64_t count;
  Epilogue epilogue;  // its activation only
};

FASTNETS_DECLARE(void, pointwise, (const PointwiseCall& call, ThreadContext& context));

}  // namespace fastnets
