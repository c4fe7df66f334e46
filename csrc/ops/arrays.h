// How bindings turn checked arrays into what kernels take.
#pragma once

#include <pybind11/stl.h>

#include <optional>

#include "common/arguments.h"
#include "common/pixels.h"
#include "common/scratch.h"
#include "plan/step.h"

namespace fastnets {

// Below this many elements a call costs less than waking the other threads.
constexpr int64_t kParallelElements = 1 << 15;
constexpr int64_t kParallelProducts = 1 << 18;  // the same in multiplications
// Kernels share rows of pixels out to threads, who count them in 24 bits (common/threads.h).
constexpr int64_t kMostRows = (1 << 24) - 1;

// Batch, channels, size and strides of `array`, (N, C, z, y, x).
template <class T>
void set_sizes(PixelsOf<T>& pixels, const pybind11::array& array, const std::string& op,
               const std::string& name) {
  pixels.data = static_cast<T*>(const_cast<void*>(array.data()));
  pixels.batch = array.shape(0), pixels.channels = array.shape(1);
  pixels.stride[0] = element_stride(array, 0);
  for (int i = 0; i < 3; ++i) {
    pixels.size[i] = array.shape(2 + i);
    pixels.stride[i + 1] = element_stride(array, 2 + i);
  }
  const int64_t rows = pixels.batch * pixels.size[0] * pixels.size[1];
  require(rows <= kMostRows, op + ": " + name + " has " + std::to_string(rows) +
                                 " rows of pixels: pass at most " + std::to_string(kMostRows) + " at a time");
}

// The same, with the channels of each pixel adjacent.
template <class T>
void set_geometry(PixelsOf<T>& pixels, const pybind11::array& array, const std::string& op,
                  const std::string& name) {
  require(array.size() == 0 || array.shape(1) == 1 || element_stride(array, 1) == 1,
          op + ": " + name + " must have its channels adjacent: pass a channels-last copy");
  set_sizes(pixels, array, op, name);
}

inline void require_output(const pybind11::array& array, const std::string& op, const std::string& name) {
  require(array.writeable(), op + ": " + name + " is read-only: pass an array that can be written");
  for (int axis = 0; axis < array.ndim(); ++axis) {
    require(array.size() == 0 || array.shape(axis) == 1 || array.strides(axis) != 0,
            op + ": " + name + " repeats its elements along axis " + std::to_string(axis) +
                ": pass a tensor that is not expanded");
  }
}

// Pixels of float32, for kernels that take nothing else.
inline ConstPixels input_pixels(const pybind11::array& array, const std::string& op,
                                const std::string& name) {
  require_array<float>(array, op, name, 5);
  ConstPixels pixels{};
  set_geometry(pixels, array, op, name);
  return pixels;
}

inline Pixels output_pixels(const pybind11::array& array, const std::string& op, const std::string& name) {
  require_array<float>(array, op, name, 5);
  require_output(array, op, name);
  Pixels pixels{};
  set_geometry(pixels, array, op, name);
  return pixels;
}

// Pixels of float32 or bfloat16.
inline ConstAnyPixels any_input(const pybind11::array& array, const std::string& op,
                                const std::string& name) {
  ConstAnyPixels pixels{};
  pixels.element = require_elements(array, op, name, 5);
  set_geometry(pixels, array, op, name);
  return pixels;
}

inline AnyPixels any_output(const pybind11::array& array, const std::string& op, const std::string& name) {
  AnyPixels pixels{};
  pixels.element = require_elements(array, op, name, 5);
  require_output(array, op, name);
  set_geometry(pixels, array, op, name);
  return pixels;
}

// The same, where another tensor decides the dtype.
inline ConstAnyPixels any_input(const pybind11::array& array, const std::string& op, const std::string& name,
                                Element element) {
  require_elements(array, op, name, 5, element);
  return any_input(array, op, name);
}

inline AnyPixels any_output(const pybind11::array& array, const std::string& op, const std::string& name,
                            Element element) {
  require_elements(array, op, name, 5, element);
  return any_output(array, op, name);
}

inline Element element_of(const Pixels&) { return Element::float32; }
inline Element element_of(const AnyPixels& y) { return y.element; }

// `y` has the batch and the channels of `x`.
template <class X, class Y>
void require_same_channels(const PixelsOf<X>& x, const PixelsOf<Y>& y, const std::string& op) {
  require(x.batch == y.batch && x.channels == y.channels,
          op + ": out has batch " + std::to_string(y.batch) + " and " + std::to_string(y.channels) +
              " channels: pass those of x, " + std::to_string(x.batch) + " and " +
              std::to_string(x.channels));
}

template <class X, class Y>
void require_same_size(const PixelsOf<X>& x, const PixelsOf<Y>& y, const std::string& op) {
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
template <class Y>
Epilogue epilogue_of(const Y& y, const std::optional<pybind11::array>& scale,
                     const std::optional<pybind11::array>& shift,
                     const std::optional<pybind11::array>& residual, int activation, float alpha, float beta,
                     const std::string& op) {
  Epilogue epilogue;
  epilogue.scale = vector_of<float>(scale, y.channels, op, "scale");
  epilogue.shift = vector_of<float>(shift, y.channels, op, "shift");
  if (residual) {
    const ConstAnyPixels pixels = any_input(*residual, op, "residual", element_of(y));
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

// Whether results may be stored past the caches, which takes whole aligned vectors: `run` channels together.
inline bool can_stream(const void* y, const int64_t stride[4], int64_t run, int64_t lanes,
                       const Epilogue& epilogue) {
  bool aligned = reinterpret_cast<uintptr_t>(y) % kAlignment == 0 && run % lanes == 0;
  for (int i = 0; i < 4; ++i) aligned = aligned && stride[i] % lanes == 0;
  return aligned && epilogue.activation <= Activation::clamp;
}

template <class T>
int64_t pixel_count(const PixelsOf<T>& y) {
  return y.batch * y.size[0] * y.size[1] * y.size[2];
}

}  // namespace fastnets
