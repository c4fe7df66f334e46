// Channels-last tensors as kernels take them: (N, C, z, y, x) whose channels are adjacent. Pixels may lie
// anywhere, so that a tensor may be a crop, or a slice of the channels, of a larger one.
#pragma once

#include <cstdint>

#include "common/element.h"

namespace fastnets {

template <class T>
struct PixelsOf {
  T* data;
  int64_t batch, channels;
  int64_t size[3];    // z, y, x
  int64_t stride[4];  // in elements: image, z, y, x
};

using Pixels = PixelsOf<float>;
using ConstPixels = PixelsOf<const float>;

// Pixels whose elements are of a type that is known when they are read.
template <class Void>
struct AnyPixelsOf : PixelsOf<Void> {
  Element element;
};

using AnyPixels = AnyPixelsOf<void>;
using ConstAnyPixels = AnyPixelsOf<const void>;

}  // namespace fastnets
