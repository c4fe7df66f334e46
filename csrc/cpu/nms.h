// Greedy non-maximum suppression of boxes within groups.
#pragma once

#include "common/threads.h"
#include "cpu/isa.h"

namespace fastnets {

// Boxes of one group lie together, best first. Those that overlap a kept better one by more than `threshold`
// (intersection over union) are dropped.
struct NmsCall {
  const float* boxes;     // [5][count]: x1, y1, x2, y2, area
  const int64_t* starts;  // [groups + 1]
  float* dropped;         // [count]: 0 at first, then 1 where dropped
  int64_t count, groups;
  float threshold;
};

FASTNETS_DECLARE(void, nms, (const NmsCall& call, ThreadContext& context));

}  // namespace fastnets
