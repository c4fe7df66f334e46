// out[image, channel, start + position] += window[channel, position] * weight[position], for a batch of
// windows.
#pragma once

#include <cstdint>

#include "common/threads.h"
#include "cpu/isa.h"

namespace fastnets {

// A batch of windows, and where each lands. Three spatial axes z, y, x; sizes in elements, strides in floats.
//
// A line is a run that is contiguous in the output and in a window alike: one channel of one x row where
// channels come first (`lines` = channels), or all channels of an x row where they come last (`lines` = 1,
// `length` = width * channels). So the kernel does not know the layouts.
struct WindowBatch {
  float* out;
  const float* windows;
  const int64_t* starts;  // [count][4]: image, z, y, x
  int64_t count, lines, depth, height, length;
  int64_t out_image, out_line, out_z, out_y, out_x;
  int64_t window, window_line, window_z, window_y;
  // weight(z, y, i) = max(weight_z[z] * weight_y[y] * weight_rows[z * rows_z + y * rows_y + i], floor)
  const float* weight_z;
  const float* weight_y;
  const float* weight_rows;
  int64_t rows_z, rows_y;
  float floor;
};

FASTNETS_DECLARE(void, window_accumulate, (const WindowBatch& batch, ThreadContext& context));

}  // namespace fastnets
