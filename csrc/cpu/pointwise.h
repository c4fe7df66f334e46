// y = activation(x * scale + shift + residual): what no other kernel could take into its epilogue, and
// copies, also from one type of elements to another.
#pragma once

#include "common/epilogue.h"
#include "common/pixels.h"
#include "common/threads.h"
#include "cpu/isa.h"

namespace fastnets {

struct PointwiseCall {
  ConstAnyPixels x;
  AnyPixels y;  // may be x
  Epilogue epilogue;
};

FASTNETS_DECLARE(void, pointwise, (const PointwiseCall& call, ThreadContext& context));

}  // namespace fastnets
