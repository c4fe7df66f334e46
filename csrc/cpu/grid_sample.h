// Values of an image at the positions of a grid, as torch's grid_sample.
#pragma once

#include "common/pixels.h"
#include "common/threads.h"
#include "cpu/isa.h"

namespace fastnets {

enum class Outside : int32_t {
  zeros,
  border,
  reflection
};  // the order of PADDINGS in fastnets/ops/grid_sample.py

struct GridSampleCall {
  ConstPixels x;
  ConstPixels grid;  // channels: x, y and, where axes is 3, z in [-1, 1]; the size of y
  Pixels y;
  int axes;  // 2 or 3
  bool nearest;
  bool align_corners;  // -1 and 1 are the centers of the first and last pixels, not their far edges
  Outside outside;
};

FASTNETS_DECLARE(void, grid_sample, (const GridSampleCall& call, ThreadContext& context));

}  // namespace fastnets
