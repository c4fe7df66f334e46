// Argument checks shared by the bindings. Errors carry the op, the argument, what came and what is accepted.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "common/element.h"
#include "common/epilogue.h"

namespace fastnets {

inline void require(bool ok, const std::string& message) {
  if (!ok) throw std::invalid_argument(message);
}

inline std::string shape_text(const pybind11::array& array) {
  std::string text = "(";
  for (pybind11::ssize_t i = 0; i < array.ndim(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(array.shape(i));
  }
  return text + ")";
}

// `array` holds T and has `ndim` dimensions whose strides are whole elements.
template <class T>
void require_array(const pybind11::array& array, const std::string& op, const std::string& name, int ndim) {
  const std::string what = op + ": " + name;
  if (!pybind11::isinstance<pybind11::array_t<T>>(array)) {  // names of dtypes are slow to make
    throw std::invalid_argument(what + " has dtype " + std::string(pybind11::str(array.dtype())) + ": pass " +
                                std::string(pybind11::str(pybind11::dtype::of<T>())));
  }
  require(array.ndim() == ndim, what + " has shape " + shape_text(array) + ": pass " + std::to_string(ndim) +
                                    (ndim == 1 ? " dimension" : " dimensions"));
  for (int i = 0; i < ndim; ++i) {
    require(array.strides(i) % static_cast<pybind11::ssize_t>(sizeof(T)) == 0,
            what + " has strides that are not whole elements: pass a copy");
  }
}

// What `array` holds: float32, or bfloat16, which NumPy lacks, as uint16. It has `ndim` dimensions whose
// strides are whole elements.
inline Element require_elements(const pybind11::array& array, const std::string& op, const std::string& name,
                                int ndim) {
  if (pybind11::isinstance<pybind11::array_t<uint16_t>>(array)) {
    require_array<uint16_t>(array, op, name, ndim);
    return Element::bfloat16;
  }
  require_array<float>(array, op, name, ndim);
  return Element::float32;
}

// The same, where another tensor decides what it holds.
inline void require_elements(const pybind11::array& array, const std::string& op, const std::string& name,
                             int ndim, Element element) {
  require(require_elements(array, op, name, ndim) == element, op + ": " + name + " has dtype " +
                                                                  std::string(pybind11::str(array.dtype())) +
                                                                  ": pass one dtype for all tensors");
}

// `array` has exactly this shape; `expected` says in words what decides it.
inline void require_shape(const pybind11::array& array, std::initializer_list<int64_t> shape,
                          const std::string& op, const std::string& name, const std::string& expected) {
  bool same = array.ndim() == static_cast<pybind11::ssize_t>(shape.size());
  pybind11::ssize_t i = 0;
  for (int64_t size : shape) same = same && array.shape(i++) == size;
  require(same, op + ": " + name + " has shape " + shape_text(array) + ": pass " + expected);
}

inline int64_t element_stride(const pybind11::array& array, int axis) {
  return array.strides(axis) / array.itemsize();
}

// The stride of one axis, in elements.
template <class T>
int64_t stride(const pybind11::array& array, int axis) {
  return array.strides(axis) / static_cast<int64_t>(sizeof(T));
}

// The activation of a number that fastnets/ops/epilogue.py gave.
inline Activation activation_of(int number, const std::string& op) {
  require(number >= 0 && number <= static_cast<int>(Activation::gelu_tanh),
          op + ": activation is " + std::to_string(number) + ": pass 0 to " +
              std::to_string(static_cast<int>(Activation::gelu_tanh)));
  return static_cast<Activation>(number);
}

}  // namespace fastnets
