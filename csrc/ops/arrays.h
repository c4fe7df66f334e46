// How bindings turn checked arrays into what kernels take.
#pragma once

#include <pybind11/stl.h>

#include <optional>

#include "common/arguments.h"
#include "common/pixels.h"
#include "plan/step.h"

namespace fastnets {

// Below this many elements a call costs less than waking the other threads.
constexpr int64_t kParallelElements = 1 << 15;

template <class T>
PixelsOf<T> pixels_of(const pybind11::array& array, const std::string& op, const std::string& name) {
  require_array<float>(array, op, name, 5);
  require(array.size() == 0 || array.shape(1) == 1 || stride<float>(array, 1) == 1,
          op + ": " + name + " must have its channels adjacent: pass a channels-last copy");
  PixelsOf<T> pixels{};
  pixels.data = static_cast<T*>(const_cast<void*>(array.data()));
  pixels.batch = array.shape(0), pixels.channels = array.shape(1);
  pixels.stride[0] = stride<float>(array, 0);
  for (int i = 0; i < 3; ++i) {
    pixels.size[i] = array.shape(2 + i);
    pixels.stride[i + 1] = stride<float>(array, 2 + i);
  }
  return pixels;
}

inline ConstPixels input_pixels(const pybind11::array& array, const std::string& op,
                                const std::string& name) {
  return pixels_of<const float>(array, op, name);
}

inline Pixels output_pixels(const pybind11::array& array, const std::string& op, const std::string& name) {
  require(array.writeable(), op + ": " + name + " is read-only: pass an array that can be written");
  const Pixels pixels = pixels_of<float>(array, op, name);
  for (int axis = 0; axis < array.ndim(); ++axis) {
    require(array.size() == 0 || array.shape(axis) == 1 || array.strides(axis) != 0,
            op + ": " + name + " repeats its elements along axis " + std::to_string(axis) +
                ": pass a tensor that is not expanded");
  }
  return pixels;
}

// `y` has the batch and the channels of `x`.
inline void require_same_channels(const ConstPixels& x, const Pixels& y, const std::string& op) {
  require(x.batch == y.batch && x.channels == y.channels,
          op + ": out has batch " + std::to_string(y.batch) + " and " + std::to_string(y.channels) +
              " channels: pass those of x, " + std::to_string(x.batch) + " and " +
              std::to_string(x.channels));
}

inline void require_same_size(const ConstPixels& x, const Pixels& y, const std::string& op) {
  require(x.size[0] == y.size[0] && x.size[1] == y.size[1] && x.size[2] == y.size[2],
          op + ": out and x differ in their spatial size: pass the same");
}

// A contiguous vector of T, or null.
template <class T>
const T* vector_of(const std::optional<pybind11::array>& array, int64_t size, const std::string& op,
                   const std::string& name) {
  if (!array) return nullptr;
  retain(*array);
  require_array<T>(*array, op, name, 1);
  require_shape(*array, {size}, op, name, std::to_string(size) + (size == 1 ? " value" : " values"));
  require(size <= 1 || stride<T>(*array, 0) == 1, op + ": " + name + " must be contiguous: pass a copy");
  return static_cast<const T*>(array->data());
}

// Scale, shift and residual of an output; the activation comes from the caller.
inline Epilogue epilogue_of(const Pixels& y, const std::optional<pybind11::array>& scale,
                            const std::optional<pybind11::array>& shift,
                            const std::optional<pybind11::array>& residual, int activation, float alpha,
                            float beta, const std::string& op) {
  Epilogue epilogue;
  epilogue.scale = vector_of<float>(scale, y.channels, op, "scale");
  epilogue.shift = vector_of<float>(shift, y.channels, op, "shift");
  if (residual) {
    const ConstPixels pixels = input_pixels(*residual, op, "residual");
    require_same_channels(pixels, y, op);
    require_same_size(pixels, y, op);
    epilogue.residual = pixels.data;
    for (int i = 0; i < 4; ++i) epilogue.residual_stride[i] = pixels.stride[i];
  }
  epilogue.activation = activation_of(activation, op);
  epilogue.alpha = alpha;
  epilogue.beta = beta;
  return epilogue;
}

inline int64_t pixel_count(const Pixels& y) { return y.batch * y.size[0] * y.size[1] * y.size[2]; }

}  // namespace fastnets
