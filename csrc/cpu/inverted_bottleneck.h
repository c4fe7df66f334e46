// A 1x1 convolution, a depthwise convolution of its results and a 1x1 convolution of those, in one kernel.
#pragma once

#include "cpu/conv.h"

namespace fastnets {

struct InvertedBottleneckCall {
  ConvShape shape;  // of the depthwise convolution, of images and without dilation: cin = cout = groups
  Element element;  // of x, y, the residual and the weights of the 1x1 convolutions
  const void* x;
  int64_t x_stride[4];  // in elements: image, z, y, x
  int64_t cin;
  void* y;
  int64_t y_stride[4];
  int64_t cout;
  const void* expand;               // packed by pack_product
  const float* depthwise;           // packed by pack_grouped
  const void* project;              // packed by pack_product
  Epilogue before, between, after;  // of the three convolutions; the last may have a residual
  bool stream;                      // store past the caches
};

// Bytes of scratch for `threads` threads.
FASTNETS_DECLARE_AMX(int64_t, inverted_bottleneck_scratch, (const InvertedBottleneckCall& call, int threads));

// All threads of a team call this with the same `call` and `scratch`.
FASTNETS_DECLARE_AMX(void, inverted_bottleneck,
                     (const InvertedBottleneckCall& call, void* scratch, ThreadContext& context));

}  // namespace fastnets
