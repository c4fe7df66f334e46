// y = activation(x op other), where `other` may be the same along any axis.
#pragma once

#include "common/epilogue.h"
#include "common/pixels.h"
#include "common/threads.h"
#include "cpu/isa.h"

namespace fastnets {

// The order is that of KINDS in fastnets/ops/combine.py.
enum class Combine : int32_t {
  add,
  multiply,
  prelu,  // x < 0: other * x
  subtract,
  divide,
};

struct CombineCall {
  ConstAnyPixels x, other;  // other has the size of x: strides of 0 repeat it
  bool one_channel;         // other has one value a pixel
  AnyPixels y;              // of the elements of x and other
  Combine kind;
  Epilogue epilogue;  // its activation only
};

FASTNETS_DECLARE(void, combine, (const CombineCall& call, ThreadContext& context));

}  // namespace fastnets
