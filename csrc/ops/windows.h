// What the window ops share: arrays (N, C, *spatial) of one to three spatial axes, seen as N × lines × z × y
// contiguous runs, and the places where windows lie.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "common/arguments.h"

namespace fastnets {

// Shape and strides (in elements) of an array (N, C, *spatial), with spatial axes of size 1 put in front.
struct Windowed {
  int64_t shape[5];
  int64_t strides[5];

  Windowed(const pybind11::array& array, const char* op, const char* name) {
    const int ndim = static_cast<int>(array.ndim()), lead = 5 - ndim;
    require(ndim >= 3 && ndim <= 5, std::string(op) + ": " + name + " has shape " + shape_text(array) +
                                        ": pass (N, C, *spatial) with 1 to 3 spatial axes");
    for (int axis = 0; axis < 5; ++axis) {
      const int from = axis < 2 ? axis : axis - lead;
      const bool there = axis < 2 || from >= 2;
      shape[axis] = there ? array.shape(from) : 1;
      strides[axis] = there ? array.strides(from) / array.itemsize() : 0;
      require(!there || array.strides(from) % array.itemsize() == 0,
              std::string(op) + ": " + name + " has strides that are not whole elements: pass a copy");
    }
  }

  bool empty() const {
    return std::any_of(shape, shape + 5, [](int64_t size) { return size == 0; });
  }

  // An x row of one channel is one run.
  bool rows_are_runs() const { return shape[4] == 1 || strides[4] == 1; }

  // An x row of all channels, pixel by pixel, is one run.
  bool pixels_are_runs() const {
    return (shape[1] == 1 || strides[1] == 1) && (shape[4] == 1 || strides[4] == shape[1]);
  }
};

// Whether runs hold all channels of a row (channels last) rather than one; throws where the arrays share no
// kind.
inline bool runs_hold_channels(const Windowed& a, const Windowed& b, const char* op) {
  if (a.rows_are_runs() && b.rows_are_runs()) return false;
  require(a.pixels_are_runs() && b.pixels_are_runs(),
          std::string(op) +
              ": image and windows must have contiguous x rows, both with channels first or both "
              "with channels last: pass a copy of one in the layout of the other");
  return true;
}

// [window][4]: image, z, y, x, from (windows, 1 + axes), checked to lie inside `image`.
inline std::vector<int64_t> window_starts(const pybind11::array& starts, const Windowed& image,
                                          const Windowed& windows, int axes, const char* op) {
  require_array<int64_t>(starts, op, "starts", 2);
  require_shape(starts, {windows.shape[0], 1 + axes}, op, "starts",
                "(windows, 1 + spatial axes): the image and the first position of each window");
  require(image.shape[1] == windows.shape[1],
          std::string(op) + ": windows have " + std::to_string(windows.shape[1]) +
              " channels and the image has " + std::to_string(image.shape[1]) + ": pass the same number");
  std::vector<int64_t> padded(static_cast<size_t>(4 * windows.shape[0]), 0);
  const auto* data = static_cast<const int64_t*>(starts.data());
  for (int64_t i = 0; i < windows.shape[0]; ++i) {
    for (int k = 0; k <= axes; ++k) {
      const int slot = k == 0 ? 0 : k + 3 - axes, axis = k == 0 ? 0 : slot + 1;
      const int64_t start = data[i * stride<int64_t>(starts, 0) + k * stride<int64_t>(starts, 1)];
      const int64_t room = image.shape[axis] - (k == 0 ? 1 : windows.shape[axis]);
      if (start < 0 || start > room) {
        throw std::invalid_argument(std::string(op) + ": starts[" + std::to_string(i) + "][" +
                                    std::to_string(k) + "] is " + std::to_string(start) +
                                    ", and windows fit into the image from 0 to " + std::to_string(room) +
                                    ": move the windows, or pad the image");
      }
      padded[static_cast<size_t>(4 * i + slot)] = start;
    }
  }
  return padded;
}

}  // namespace fastnets
