// fastnets._C.resize: checks the arrays, then calls the kernel of the active ISA level.
#include "cpu/resize.h"

#include <vector>

#include "ops/arrays.h"

namespace fastnets {
namespace {

namespace py = pybind11;

using Arrays = std::vector<py::array>;  // z, y, x

const char* const kResize = "resize";

ResizeAxis axis_of(const py::array& low, const py::array& high, const std::optional<py::array>& weight,
                   int64_t size, int64_t out) {
  ResizeAxis axis{};
  axis.low = vector_of<int64_t>(low, out, kResize, "low");
  axis.high = vector_of<int64_t>(high, out, kResize, "high");
  axis.weight = vector_of<float>(weight, out, kResize, "weight");
  for (int64_t i = 0; i < out; ++i) {
    require(axis.low[i] >= 0 && axis.low[i] < size && axis.high[i] >= 0 && axis.high[i] < size,
            std::string(kResize) + ": positions must lie in x: pass 0 to " + std::to_string(size - 1));
  }
  return axis;
}

void resize(const py::array& x, const py::array& out, const Arrays& low, const Arrays& high,
            const std::optional<Arrays>& weight, int nthreads) {
  ResizeCall call{};
  call.x = any_input(x, kResize, "x");
  call.y = any_output(out, kResize, "out", call.x.element);
  require_same_channels(call.x, call.y, kResize);
  require(low.size() == 3 && high.size() == 3 && (!weight || weight->size() == 3),
          std::string(kResize) + ": low, high and weight must hold one array for each of z, y, x");
  if (out.size() == 0) return;
  for (size_t i = 0; i < 3; ++i) {
    const std::optional<py::array> w = weight ? std::optional<py::array>((*weight)[i]) : std::nullopt;
    call.axes[i] = axis_of(low[i], high[i], w, call.x.size[i], call.y.size[i]);
  }
  if (out.size() < kParallelElements) nthreads = 1;
  submit(
      call, [](auto& c) { return Slots{slot(c.x.data), slot(c.y.data)}; }, FASTNETS_CALL(resize_scratch),
      FASTNETS_CALL(resize), nthreads);
}

}  // namespace

void register_resize(py::module_& m) {
  m.def(kResize, &resize, py::arg("x"), py::arg("out"), py::arg("low"), py::arg("high"), py::arg("weight"),
        py::arg("nthreads"));
}

}  // namespace fastnets
