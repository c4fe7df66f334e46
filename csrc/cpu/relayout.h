// Copies between channels-first and channels-last memory, and between types of elements: a network's entry
// and exit.
#pragma once

#include "common/pixels.h"
#include "common/threads.h"
#include "cpu/isa.h"

namespace fastnets {

struct RelayoutCall {
  ConstAnyPixels x;
  AnyPixels y;                   // the batch, channels and size of x
  int64_t x_channel, y_channel;  // elements from a channel to the next
};

FASTNETS_DECLARE(void, relayout, (const RelayoutCall& call, ThreadContext& context));

}  // namespace fastnets
