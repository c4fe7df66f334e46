// A depthwise convolution and the 1x1 convolution of its results, in one kernel.
#pragma once

#include "cpu/conv.h"

namespace fastnets {

struct SeparableCall {
  ConvCall depthwise;  // its epilogue has no residual; its y, block, tile, share and stream are not used
  int64_t cout;
  void* y;              // of the elements of depthwise.x
  int64_t y_stride[4];  // in elements: image, z, y, x
  const void* weights;  // of the 1x1 convolution, packed by pack_product
  Epilogue epilogue;
  int64_t block;  // pixels of a panel of depthwise results, at most
  bool strassen;  // the 1x1 convolution by Strassen's algorithm (cpu/strassen.h)
  bool stream;    // store past the caches
};

// Bytes of scratch for `threads` threads.
FASTNETS_DECLARE_AMX(int64_t, separable_scratch, (const SeparableCall& call, int threads));

// All threads of a team call this with the same `call` and `scratch`.
FASTNETS_DECLARE_AMX(void, separable, (const SeparableCall& call, void* scratch, ThreadContext& context));

}  // namespace fastnets
