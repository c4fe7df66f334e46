// fastnets._C.pointwise: checks the arrays, then calls the kernel of the active ISA level.
#include "cpu/pointwise.h"

#include "ops/arrays.h"

namespace fastnets {
namespace {

namespace py = pybind11;

const char* const kPointwise = "pointwise";

void pointwise(const py::array& x, const py::array& out, const std::optional<py::array>& scale,
               const std::optional<py::array>& shift, const std::optional<py::array>& residual,
               int activation, float alpha, float beta, int nthreads) {
  PointwiseCall call{};
  call.x = any_input(x, kPointwise, "x");
  call.y = any_output(out, kPointwise, "out");
  require_same_channels(call.x, call.y, kPointwise);
  require_same_size(call.x, call.y, kPointwise);
  call.epilogue = epilogue_of(call.y, scale, shift, residual, activation, alpha, beta, kPointwise);
  if (x.size() == 0) return;
  if (x.size() < kParallelElements) nthreads = 1;
  submit(
      call, [](auto& c) { return Slots{slot(c.x.data), slot(c.y.data), slot(c.epilogue.residual)}; }, nullptr,
      FASTNETS_CALL(pointwise), nthreads);
}

}  // namespace

void register_pointwise(py::module_& m) {
  m.def(kPointwise, &pointwise, py::arg("x"), py::arg("out"), py::arg("scale"), py::arg("shift"),
        py::arg("residual"), py::arg("activation"), py::arg("alpha"), py::arg("beta"), py::arg("nthreads"));
}

}  // namespace fastnets
