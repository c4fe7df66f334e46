// Convolution of channels-last tensors by packed weights. One description for 1, 2 and 3 spatial axes:
// z, y, x, where a missing axis has size 1, kernel 1, stride 1, dilation 1 and no padding.
//
// Eight kernels compute it: conv_product.cpp (any), conv_groups.cpp (the same without gathering, for groups),
// conv_direct.cpp (any of bfloat16, by tiles),
// conv_winograd.cpp (stride 1, kernel 3 along the axes that it transforms and 1 along the others),
// conv_planar.cpp (few input channels), conv_narrow.cpp (1x1 to few output channels), conv_grouped.cpp (few
// channels a group) and conv_depthwise.cpp (one). Weights are packed for one of them by conv_pack.cpp.
#pragma once

#include <cstdint>

#include "common/element.h"
#include "common/epilogue.h"
#include "common/threads.h"
#include "cpu/isa.h"

namespace fastnets {

// A panel of packed weights is this many vectors of output channels; the last one of a group may be one
// vector.
constexpr int kPanelVectors = 2;

struct ConvShape {
  int64_t batch, cin, cout, groups;
  int64_t in[3], out[3];  // z, y, x
  int64_t kernel[3], stride[3], dilation[3];
  int64_t pad[3];  // zeros before the first element; those after the last follow from `out`

  FASTNETS_INLINE int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
  FASTNETS_INLINE int64_t out_pixels() const { return batch * out[0] * out[1] * out[2]; }
};

struct ConvCall {
  ConvShape shape;
  Element element;  // of x, y and the residual
  const void* x;
  int64_t x_stride[4];  // in elements: image, z, y, x
  int64_t x_channel;    // the same of channels: 1 but for the planar kernel
  void* y;              // may be null where only the maxima are wanted
  int64_t y_stride[4];
  // winograd, with an activation that clamps: where the maxima of windows of 2 results along each axis that
  // the tiles cover go, or null. An odd last result is in no window.
  void* maxima;
  int64_t maxima_stride[4];
  const void* weights;  // packed for the kernel that is called, by the same ISA level
  Epilogue epilogue;
  int64_t block;  // output pixels (product, planar, narrow, grouped) or tiles (winograd) of an item
  int tile[3];    // winograd: outputs of a tile along z, y, x; 3 along axes of stride 2
  bool taps;      // winograd: weights are packed as taps along x (common/conv_pack.h)
  // winograd, of kernel 2 and padding 1: a transposed convolution of kernel 4, stride 2 and padding 1.
  // Between position i - 1 and i of the input lie the outputs 2i - 1 and 2i along each axis, which are
  // phases: each has weights of its own, packed as a group, for the same inputs. shape.out counts the
  // positions i.
  bool transposed;
  // With transposed: null, or what is added to the results, before the residual, at the first, inner and last
  // positions of each such axis: [z][y][x][cout], 0 at the inner ones.
  const float* border;
  bool share;          // winograd: threads share transformed tiles and products
  bool strassen;       // product, of one group: by Strassen's algorithm (cpu/strassen.h)
  bool stream;         // store past the caches: for outputs that do not fit into them
  bool stream_maxima;  // the same for the maxima
  bool fetch;  // winograd: fetch such outputs before they are stored, where they are not to be streamed
  bool fetch_residual;  // winograd: fetch the residual before it is added, where memory has it
};

// Lanes of a vector at this level, and columns of a factor in a product of `element` (cpu/factor.h).
FASTNETS_DECLARE_AMX(int, conv_lanes, ());
FASTNETS_DECLARE_AMX(int, conv_steps, (Element element));

// Multiply-adds of a product of `element` in the time of as many vectors of float32: of vdpbf16ps on Zen, and
// of tiles half of what they could.
FASTNETS_DECLARE_AMX(int, conv_rate, (Element element));

// What the depth of a product of `element` is a multiple of, as pack_product packs it.
FASTNETS_DECLARE_AMX(int, conv_depth, (Element element));

// Bytes of scratch for `threads` threads.
FASTNETS_DECLARE_AMX(int64_t, conv_product_scratch, (const ConvCall& call, int threads));
FASTNETS_DECLARE_BF16(int64_t, conv_groups_scratch, (const ConvCall& call, int threads));
FASTNETS_DECLARE_TILES(int64_t, conv_direct_scratch, (const ConvCall& call, int threads));
FASTNETS_DECLARE_BF16(int64_t, conv_winograd_scratch, (const ConvCall& call, int threads));
FASTNETS_DECLARE_BF16(int64_t, conv_depthwise_scratch, (const ConvCall& call, int threads));
FASTNETS_DECLARE_BF16(int64_t, conv_planar_scratch, (const ConvCall& call, int threads));
FASTNETS_DECLARE(int64_t, conv_narrow_scratch, (const ConvCall& call, int threads));
FASTNETS_DECLARE(int64_t, conv_grouped_scratch, (const ConvCall& call, int threads));

// All threads of a team call these with the same `call` and `scratch`.
FASTNETS_DECLARE_AMX(void, conv_product, (const ConvCall& call, void* scratch, ThreadContext& context));
FASTNETS_DECLARE_BF16(void, conv_groups, (const ConvCall& call, void* scratch, ThreadContext& context));
FASTNETS_DECLARE_TILES(void, conv_direct, (const ConvCall& call, void* scratch, ThreadContext& context));
FASTNETS_DECLARE_BF16(void, conv_winograd, (const ConvCall& call, void* scratch, ThreadContext& context));
FASTNETS_DECLARE_BF16(void, conv_depthwise, (const ConvCall& call, void* scratch, ThreadContext& context));
FASTNETS_DECLARE_BF16(void, conv_planar, (const ConvCall& call, void* scratch, ThreadContext& context));
FASTNETS_DECLARE(void, conv_narrow, (const ConvCall& call, void* scratch, ThreadContext& context));
FASTNETS_DECLARE(void, conv_grouped, (const ConvCall& call, void* scratch, ThreadContext& context));

}  // namespace fastnets
