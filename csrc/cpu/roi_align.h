// Averages of bilinear samples over the bins of boxes (Mask R-CNN's RoIAlign).
#pragma once

#include "common/pixels.h"
#include "common/threads.h"
#include "cpu/isa.h"

namespace fastnets {

struct RoiAlignCall {
  ConstPixels x;       // one z plane
  const float* boxes;  // [boxes][5]: image, x1, y1, x2, y2
  Pixels y;            // batch: boxes; size: 1, bins along y, bins along x
  float scale;         // from the coordinates of boxes to pixels of x
  int64_t samples;     // along each axis of a bin; 0: one a pixel
  bool aligned;        // pixel centers are at half-integers
};

FASTNETS_DECLARE(void, roi_align, (const RoiAlignCall& call, ThreadContext& context));

}  // namespace fastnets
