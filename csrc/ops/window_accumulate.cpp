// fastnets._C.window_accumulate: checks the arrays, then calls the kernel of the active ISA level.
#include "cpu/window_accumulate.h"

#include "common/arguments.h"

namespace fastnets {
namespace {

namespace py = pybind11;

const char* const kOp = "window_accumulate";

// Below this many elements a call costs less than waking the other threads.
constexpr int64_t kParallelElements = 1 << 15;

void require_inside(const py::array& out, const py::array& windows, const int64_t* starts) {
  const int axes[4] = {0, 2, 3, 4};
  for (int64_t i = 0; i < windows.shape(0); ++i) {
    for (int k = 0; k < 4; ++k) {
      const int64_t start = starts[4 * i + k];
      const int64_t room = out.shape(axes[k]) - (k == 0 ? 1 : windows.shape(axes[k]));
      require(start >= 0 && start <= room,
              std::string(kOp) + ": starts[" + std::to_string(i) + "][" + std::to_string(k) + "] is " +
                  std::to_string(start) + ", and windows of shape " + shape_text(windows) +
                  " fit into out of shape " + shape_text(out) + " only from 0 to " + std::to_string(room));
    }
  }
}

// Throws unless x rows are contiguous in `array`: alone, or with the channels of each pixel together.
void require_lines(const py::array& array, const std::string& name, bool channels_last) {
  const int64_t channels = array.shape(1), width = array.shape(4);
  const bool pixels = stride<float>(array, 4) == (channels_last ? channels : 1);
  require((width == 1 || pixels) && (!channels_last || stride<float>(array, 1) == 1),
          std::string(kOp) + ": " + name + " must have contiguous x rows, channels " +
              (channels_last ? "last" : "first") + " as weight_rows says: pass a copy in that layout");
}

void window_accumulate(const py::array& out, const py::array& windows, const py::array& starts,
                       const py::array& weight_z, const py::array& weight_y, const py::array& weight_rows,
                       float floor, int nthreads) {
  require_array<float>(out, kOp, "out", 5);
  require_array<float>(windows, kOp, "windows", 5);
  require_array<int64_t>(starts, kOp, "starts", 2);
  require_array<float>(weight_z, kOp, "weight_z", 1);
  require_array<float>(weight_y, kOp, "weight_y", 1);
  require_array<float>(weight_rows, kOp, "weight_rows", 3);
  require(out.writeable(), std::string(kOp) + ": out is read-only: pass an array that can be written");
  require(nthreads >= 1, std::string(kOp) + ": nthreads is " + std::to_string(nthreads) + ": pass 1 or more");
  const int64_t count = windows.shape(0), channels = windows.shape(1);
  const int64_t depth = windows.shape(2), height = windows.shape(3), width = windows.shape(4);
  require(out.shape(1) == channels, std::string(kOp) + ": windows have " + std::to_string(channels) +
                                        " channels and out has " + std::to_string(out.shape(1)) +
                                        ": pass the same number");
  require_shape(starts, {count, 4}, kOp, "starts", "(windows, 4): image, z, y, x of each window");
  require_shape(weight_z, {depth}, kOp, "weight_z", "the depth of the windows");
  require_shape(weight_y, {height}, kOp, "weight_y", "the height of the windows");
  if (windows.size() == 0) return;
  for (int axis = 0; axis < 5; ++axis) {
    require(out.shape(axis) == 1 || out.strides(axis) > 0,
            std::string(kOp) + ": out repeats its elements along axis " + std::to_string(axis) +
                ": pass a tensor that is not expanded");
  }
  require(starts.strides(1) == 8 && (count == 1 || starts.strides(0) == 32) &&
              (depth == 1 || stride<float>(weight_z, 0) == 1) &&
              (height == 1 || stride<float>(weight_y, 0) == 1),
          std::string(kOp) + ": starts, weight_z and weight_y must be contiguous: pass copies");
  // The weights of a row tell the layout: one a pixel, or one a channel of each pixel.
  const bool last = channels > 1 && weight_rows.shape(2) == width * channels;
  const int64_t length = last ? width * channels : width;
  require_shape(weight_rows, {depth, height, length}, kOp, "weight_rows",
                "(depth, height, width), or (depth, height, width * channels) where channels come last");
  require_lines(out, "out", last);
  require_lines(windows, "windows", last);
  require(length == 1 || stride<float>(weight_rows, 2) == 1,
          std::string(kOp) + ": weight_rows must be contiguous along its last axis: pass a copy");
  const auto* positions = static_cast<const int64_t*>(starts.data());
  require_inside(out, windows, positions);

  WindowBatch batch{};
  batch.out = static_cast<float*>(const_cast<void*>(out.data()));
  batch.windows = static_cast<const float*>(windows.data());
  batch.starts = positions;
  batch.count = count;
  batch.lines = last ? 1 : channels;
  batch.depth = depth;
  batch.height = height;
  batch.length = length;
  batch.out_image = stride<float>(out, 0);
  batch.out_line = stride<float>(out, 1);
  batch.out_z = stride<float>(out, 2);
  batch.out_y = stride<float>(out, 3);
  batch.out_x = stride<float>(out, 4);
  batch.window = stride<float>(windows, 0);
  batch.window_line = stride<float>(windows, 1);
  batch.window_z = stride<float>(windows, 2);
  batch.window_y = stride<float>(windows, 3);
  batch.weight_z = static_cast<const float*>(weight_z.data());
  batch.weight_y = static_cast<const float*>(weight_y.data());
  batch.weight_rows = static_cast<const float*>(weight_rows.data());
  batch.rows_z = stride<float>(weight_rows, 0);
  batch.rows_y = stride<float>(weight_rows, 1);
  batch.floor = floor;
  const auto kernel = FASTNETS_CALL(window_accumulate);
  const py::gil_scoped_release release;
  kernel(batch, windows.size() < kParallelElements ? 1 : nthreads);
}

}  // namespace

void register_window_accumulate(py::module_& m) {
  m.def(kOp, &window_accumulate, py::arg("out"), py::arg("windows"), py::arg("starts"), py::arg("weight_z"),
        py::arg("weight_y"), py::arg("weight_rows"), py::arg("floor"), py::arg("nthreads"));
}

}  // namespace fastnets
