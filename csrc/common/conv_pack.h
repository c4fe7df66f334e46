// Packs convolution weights (cout, cin / groups, z, y, x), contiguous, for one of the kernels of cpu/conv.h.
//
// `lanes` is the vector width of the level that will run them. Output channels are split into panels of
// kPanelVectors vectors within each group; missing channels of the last vector are zeros.
#pragma once

#include <cstdint>

#include "common/threads.h"

namespace fastnets {

struct ConvWeights {
  const float* values;
  int64_t cout, cin, groups;  // cin: of one group
  int64_t kernel[3];
};

// [group][panel][tap][cin][panel lanes]
int64_t packed_product_floats(const ConvWeights& weights, int lanes);
void pack_product(const ConvWeights& weights, int lanes, float* packed, ThreadContext& context);

// [group][panel][xi][cin][panel lanes]: the weights of each panel transformed to the (tile + kernel - 1)
// points along each axis. Along an axis whose tile is 1 the kernel must be 1. Computed in double.
int64_t packed_winograd_floats(const ConvWeights& weights, const int tile[3], int lanes);
void pack_winograd(const ConvWeights& weights, const int tile[3], int lanes, float* packed,
                   ThreadContext& context);

// [vector][tap][cin][lanes], for groups whose cin divides the lanes and equals their number of outputs, and
// for depthwise convolutions, whose cin is 1
int64_t packed_grouped_floats(const ConvWeights& weights, int lanes);
void pack_grouped(const ConvWeights& weights, int lanes, float* packed, ThreadContext& context);

}  // namespace fastnets
