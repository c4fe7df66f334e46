// Transposed convolution without scattering: each output pixel gathers the inputs that reach it. A kernel of
// 1 and stride 1 makes it the product of a linear layer.
#pragma once

#include "common/epilogue.h"
#include "common/pixels.h"
#include "common/threads.h"
#include "cpu/isa.h"

namespace fastnets {

struct ConvTransposeCall {
  ConstAnyPixels x;
  AnyPixels y;          // of the elements of x
  const void* weights;  // packed by pack_panels with conv_transpose_lanes()
  int64_t groups;
  int64_t kernel[3], stride[3], pad[3], dilation[3];
  Epilogue epilogue;
  bool stream;  // store past the caches: for outputs that do not fit into them
};

FASTNETS_DECLARE_AMX(int, conv_transpose_lanes, ());
// `scratch` holds conv_transpose_scratch(call, threads) bytes.
FASTNETS_DECLARE_AMX(int64_t, conv_transpose_scratch, (const ConvTransposeCall& call, int threads));
FASTNETS_DECLARE_AMX(void, conv_transpose,
                     (const ConvTransposeCall& call, void* scratch, ThreadContext& context));

}  // namespace fastnets
