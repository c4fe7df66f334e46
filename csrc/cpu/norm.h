// Instance, group and batch normalization: mean and variance over pixels, applied with an epilogue.
#pragma once

#include "common/epilogue.h"
#include "common/pixels.h"
#include "common/threads.h"
#include "cpu/isa.h"

namespace fastnets {

// y = activation((x - mean) / sqrt(variance + epsilon) * scale + shift + residual); scale, shift, residual
// and activation are those of the epilogue.
struct NormCall {
  ConstAnyPixels x;
  AnyPixels y;     // of the elements of x
  int64_t groups;  // whose channels share mean and variance
  double epsilon;
  // [batch][channels][2]: mean and variance of each channel of each image; null: those of x. A producer may
  // have them at hand. With moments_stride 0 all images share them: batch normalization.
  const double* moments;
  int64_t moments_stride;
  Epilogue epilogue;
};

// `scratch` holds norm_scratch(call) bytes.
FASTNETS_DECLARE(int64_t, norm_scratch, (const NormCall& call));
FASTNETS_DECLARE(void, norm, (const NormCall& call, void* scratch, ThreadContext& context));

// The moments of x, [batch][channels][2].
struct MomentsCall {
  ConstAnyPixels x;
  double* moments;
};

FASTNETS_DECLARE(int64_t, moments_scratch, (const MomentsCall& call));
FASTNETS_DECLARE(void, moments, (const MomentsCall& call, void* scratch, ThreadContext& context));

}  // namespace fastnets
