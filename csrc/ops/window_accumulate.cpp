// fastnets._C.window_accumulate: checks the arrays, then calls the kernel of the active ISA level.
#include "cpu/window_accumulate.h"

#include <pybind11/stl.h>

#include <limits>

#include "ops/windows.h"

namespace fastnets {
namespace {

namespace py = pybind11;

const char* const kWindowAccumulate = "window_accumulate";

// Below this many elements a call costs less than waking the other threads.
constexpr int64_t kParallelElements = 1 << 15;

// The weights in the form that the kernel reads; `rows` repeats a weight for each of `repeat` channels.
struct Weights {
  std::vector<float> z, y, rows;
  int64_t rows_z = 0, rows_y = 0;
  float floor;

  // `given` holds one vector an axis, or one array of all axes, which has no floor.
  Weights(const std::vector<py::array>& given, const Windowed& windows, int axes, int64_t repeat,
          float lowest)
      : z(static_cast<size_t>(windows.shape[2]), 1.0f),
        y(static_cast<size_t>(windows.shape[3]), 1.0f),
        floor(lowest) {
    const int64_t depth = windows.shape[2], height = windows.shape[3], width = windows.shape[4];
    if (static_cast<int>(given.size()) == axes) {
      for (int k = 0; k < axes; ++k) {
        const std::string name = "weights[" + std::to_string(k) + "]";
        require_array<float>(given[k], kWindowAccumulate, name, 1);
        require_shape(given[k], {windows.shape[5 - axes + k]}, kWindowAccumulate, name,
                      "one weight a position");
      }
      if (axes > 2) append(z, given[0]);
      if (axes > 1) append(y, given[axes - 2]);
      append(rows, given[axes - 1], repeat);
      return;
    }
    require(given.size() == 1, std::string(kWindowAccumulate) + ": weights has " +
                                   std::to_string(given.size()) +
                                   " arrays: pass one vector an axis, or one array");
    require_array<float>(given[0], kWindowAccumulate, "weights[0]", axes);
    for (int k = 0; k < axes; ++k) {
      require(given[0].shape(k) == windows.shape[5 - axes + k],
              std::string(kWindowAccumulate) + ": weights[0] has shape " + shape_text(given[0]) +
                  ": pass the size of the windows");
    }
    floor = std::numeric_limits<float>::lowest();
    rows.reserve(static_cast<size_t>(depth * height * width * repeat));
    append(rows, given[0], repeat);
    rows_y = width * repeat;
    rows_z = height * rows_y;
  }

 private:
  // Replaces `target` by the elements of a C-contiguous copy of `source`, each `repeat` times.
  static void append(std::vector<float>& target, const py::array& source, int64_t repeat = 1) {
    const auto dense = py::array_t<float, py::array::c_style | py::array::forcecast>::ensure(source);
    target.clear();
    for (py::ssize_t i = 0; i < dense.size(); ++i) {
      target.insert(target.end(), static_cast<size_t>(repeat), dense.data()[i]);
    }
  }
};

void window_accumulate(py::array out, const py::array& windows, const py::array& starts,
                       const std::vector<py::array>& weights, float floor, int nthreads) {
  require_array<float>(out, kWindowAccumulate, "out", static_cast<int>(out.ndim()));
  require_array<float>(windows, kWindowAccumulate, "windows", static_cast<int>(out.ndim()));
  require(out.writeable(),
          std::string(kWindowAccumulate) + ": out is read-only: pass an array that can be written");
  require(nthreads >= 1,
          std::string(kWindowAccumulate) + ": nthreads is " + std::to_string(nthreads) + ": pass 1 or more");
  const Windowed to(out, kWindowAccumulate, "out"), from(windows, kWindowAccumulate, "windows");
  const int axes = static_cast<int>(out.ndim()) - 2;
  const std::vector<int64_t> places = window_starts(starts, to, from, axes, kWindowAccumulate);
  if (from.empty()) return;
  for (int axis = 0; axis < 5; ++axis) {
    require(
        to.shape[axis] == 1 || to.strides[axis] > 0,
        std::string(kWindowAccumulate) + ": out repeats its elements: pass a tensor that is not expanded");
  }
  const bool pixels = runs_hold_channels(to, from, kWindowAccumulate);
  const int64_t channels = from.shape[1];
  const Weights weight(weights, from, axes, pixels ? channels : 1, floor);

  WindowBatch batch{};
  batch.out = static_cast<float*>(out.mutable_data());
  batch.windows = static_cast<const float*>(windows.data());
  batch.starts = places.data();
  batch.count = from.shape[0];
  batch.lines = pixels ? 1 : channels;
  batch.depth = from.shape[2];
  batch.height = from.shape[3];
  batch.length = pixels ? from.shape[4] * channels : from.shape[4];
  batch.out_image = to.strides[0];
  batch.out_line = to.strides[1];
  batch.out_z = to.strides[2];
  batch.out_y = to.strides[3];
  batch.out_x = to.strides[4];
  batch.window = from.strides[0];
  batch.window_line = from.strides[1];
  batch.window_z = from.strides[2];
  batch.window_y = from.strides[3];
  batch.weight_z = weight.z.data();
  batch.weight_y = weight.y.data();
  batch.weight_rows = weight.rows.data();
  batch.rows_z = weight.rows_z;
  batch.rows_y = weight.rows_y;
  batch.floor = weight.floor;
  const auto kernel = FASTNETS_CALL(window_accumulate);
  const py::gil_scoped_release release;
  run_team(windows.size() < kParallelElements ? 1 : nthreads,
           [&](ThreadContext& context) { kernel(batch, context); });
}

}  // namespace

void register_window_accumulate(py::module_& m) {
  m.def(kWindowAccumulate, &window_accumulate, py::arg("out"), py::arg("windows"), py::arg("starts"),
        py::arg("weights"), py::arg("floor"), py::arg("nthreads"));
}

}  // namespace fastnets
