// Packs convolution weights (cout, cin / groups, z, y, x), contiguous, for one of the kernels of cpu/conv.h.
//
// `lanes` is the vector width of the level that will run them. Output channels are split into panels of
// kPanelVectors vectors within each group; missing channels of the last vector are zeros.
//
// Sizes are in elements of what is packed: those of the weights for the product, floats for the others, whose
// weights are few or transformed.
#pragma once

#include <cstdint>

#include "common/element.h"
#include "common/threads.h"

namespace fastnets {

struct ConvWeights {
  const void* values;
  Element element;
  int64_t cout, cin, groups;  // cin: of one group
  int64_t kernel[3];
};

// [group][panel][tap, cin][panel lanes][steps], where tap and cin together count in steps and are padded with
// zeros to a multiple of `depth`: conv_steps(element), and conv_depth(element) for a product
struct ProductPacking {
  int lanes, steps, depth;
};
int64_t packed_product_elements(const ConvWeights& weights, const ProductPacking& packing);
void pack_product(const ConvWeights& weights, const ProductPacking& packing, void* packed,
                  ThreadContext& context);

// [group][panel][block of cin][tap][cin of a block][panel lanes][steps], in blocks of packing.depth
//
// With joins_taps, [group][panel][z, y][x, cin][panel lanes][steps], where x and cin together are padded to
// packing.depth.
constexpr int64_t kJoinedTaps = 32;
inline bool joins_taps(int64_t cin, int64_t taps) { return cin <= 4 && cin * taps <= kJoinedTaps; }
int64_t packed_direct_elements(const ConvWeights& weights, const ProductPacking& packing);
void pack_direct(const ConvWeights& weights, const ProductPacking& packing, void* packed,
                 ThreadContext& context);

// [group][panel][xi][cin][panel lanes]: the weights of each panel transformed to the (tile + kernel - 1)
// points along each axis. Along an axis whose tile is 1 the kernel must be 1. Of floats, computed in double.
//
// taps: along x, the kernel's three taps instead, [group][panel][z, y][block of cin][tap][cin][panel lanes]
// in blocks of kTapsDepth.
constexpr int64_t kTapsDepth = 64;
// The s of the points 0, s, -s, 2s, -2s and infinity, where there are six along an axis.
constexpr double kSixStep = 11.0 / 16;
int64_t packed_winograd_elements(const ConvWeights& weights, const int tile[3], bool taps, int lanes);
void pack_winograd(const ConvWeights& weights, const int tile[3], bool taps, int lanes, float* packed,
                   ThreadContext& context);

// [vector][tap][cin][lanes], for groups whose cin divides the lanes and equals their number of outputs, and
// for depthwise convolutions, whose cin is 1
int64_t packed_grouped_elements(const ConvWeights& weights, int lanes);
void pack_grouped(const ConvWeights& weights, int lanes, float* packed, ThreadContext& context);

}  // namespace fastnets
