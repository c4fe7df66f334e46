// fastnets._C.grid_sample: checks the arrays, then calls the kernel of the active ISA level.
#include "cpu/grid_sample.h"

#include "ops/arrays.h"

namespace fastnets {
namespace {

namespace py = pybind11;

const char* const kGridSample = "grid_sample";

void grid_sample(const py::array& x, const py::array& grid, const py::array& out, bool nearest,
                 bool align_corners, int outside, int nthreads) {
  GridSampleCall call{};
  call.x = input_pixels(x, kGridSample, "x");
  call.grid = input_pixels(grid, kGridSample, "grid");
  call.y = output_pixels(out, kGridSample, "out");
  require_same_channels(call.x, call.y, kGridSample);
  require_same_size(call.grid, call.y, kGridSample);
  call.axes = static_cast<int>(call.grid.channels);
  require(call.grid.batch == call.y.batch && (call.axes == 3 || (call.axes == 2 && call.x.size[0] == 1)),
          std::string(kGridSample) +
              ": grid must have the batch of x and as many channels as x spatial axes, 2 or 3");
  require(outside >= 0 && outside <= 2,
          std::string(kGridSample) + ": outside is " + std::to_string(outside) + ": pass 0 to 2");
  call.nearest = nearest, call.align_corners = align_corners, call.outside = static_cast<Outside>(outside);
  if (out.size() == 0) return;
  require(x.size() > 0, std::string(kGridSample) + ": x has no pixels: pass some");
  if (out.size() < kParallelElements) nthreads = 1;
  submit(
      call, [](auto& c) { return Slots{slot(c.x.data), slot(c.grid.data), slot(c.y.data)}; }, nullptr,
      FASTNETS_CALL(grid_sample), nthreads);
}

}  // namespace

void register_grid_sample(py::module_& m) {
  m.def(kGridSample, &grid_sample, py::arg("x"), py::arg("grid"), py::arg("out"), py::arg("nearest"),
        py::arg("align_corners"), py::arg("outside"), py::arg("nthreads"));
}

}  // namespace fastnets
