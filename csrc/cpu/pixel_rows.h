// Addressing of channels-last rows. Included by kernel files only.
#pragma once

#include "common/pixels.h"
#include "cpu/activation.h"

namespace fastnets {
namespace FASTNETS_LEVEL {

// How many of the elements from `i` on a vector takes, of n.
FASTNETS_INLINE int lanes_at(int64_t i, int64_t n) {
  return n - i < Vec::width ? static_cast<int>(n - i) : Vec::width;
}

// `v` in the first lanes, and `other` in the rest. A vector that is stored in parts would be loaded late.
FASTNETS_INLINE Vec first_lanes(Vec v, int lanes, Vec other) {
  alignas(64) static constexpr float kLane[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return lanes == Vec::width ? v : if_less(Vec::load(kLane), Vec::set(static_cast<float>(lanes)), v, other);
}

// body(i, lanes) for each vector of n elements; `lanes` is a constant in all but the last.
template <class Body>
FASTNETS_INLINE void each_vector(int64_t n, const Body& body) {
  int64_t i = 0;
  for (; i + Vec::width <= n; i += Vec::width) body(i, Vec::width);
  if (i < n) body(i, static_cast<int>(n - i));
}

template <class T>
FASTNETS_INLINE T* row_of(const PixelsOf<T>& x, int64_t n, int64_t z, int64_t y) {
  return x.data + n * x.stride[0] + z * x.stride[1] + y * x.stride[2];
}

template <class T>
FASTNETS_INLINE const T* residual_row(const Epilogue& e, int64_t n, int64_t z, int64_t y) {
  return e.residual == nullptr ? nullptr
                               : static_cast<const T*>(e.residual) + n * e.residual_stride[0] +
                                     z * e.residual_stride[1] + y * e.residual_stride[2];
}

// The same of elements whose type the caller knows: row_of<T>(x, ...).
template <class T>
FASTNETS_INLINE const T* row_of(const PixelsOf<const void>& x, int64_t n, int64_t z, int64_t y) {
  return static_cast<const T*>(x.data) + n * x.stride[0] + z * x.stride[1] + y * x.stride[2];
}

template <class T>
FASTNETS_INLINE T* row_of(const PixelsOf<void>& x, int64_t n, int64_t z, int64_t y) {
  return static_cast<T*>(x.data) + n * x.stride[0] + z * x.stride[1] + y * x.stride[2];
}

// The same pixels with as few rows as their strides allow.
template <class SomePixels>
FASTNETS_INLINE SomePixels with_long_rows(SomePixels x) {
  if (x.size[1] == 1 || x.stride[2] == x.size[2] * x.stride[3]) {
    x.size[2] *= x.size[1];
    x.size[1] = 1;
    if (x.size[0] == 1 || x.stride[1] == x.size[2] * x.stride[3]) {
      x.size[2] *= x.size[0];
      x.size[0] = 1;
    }
  }
  return x;
}

// The activation of `pixels` pixels that lie `step` elements apart.
template <class T>
FASTNETS_INLINE void activate_pixels(T* y, int64_t pixels, int64_t step, int64_t channels,
                                     const Epilogue& e) {
  if (step == channels) {
    activate_row(y, pixels * channels, e);
  } else {
    for (int64_t i = 0; i < pixels; ++i) activate_row(y + i * step, channels, e);
  }
}

}  // namespace FASTNETS_LEVEL
}  // namespace fastnets
