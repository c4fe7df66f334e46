// fastnets._C.relayout: checks the arrays, then calls the kernel of the active ISA level.
#include "cpu/relayout.h"

#include "ops/arrays.h"

namespace fastnets {
namespace {

namespace py = pybind11;

const char* const kOp = "relayout";

void relayout(const py::array& x, const py::array& out, int nthreads) {
  RelayoutCall call{};
  call.x.element = require_elements(x, kOp, "x", 5);
  call.y.element = require_elements(out, kOp, "out", 5);
  require_output(out, kOp, "out");
  set_sizes(call.x, x, kOp, "x");
  set_sizes(call.y, out, kOp, "out");
  require_same_channels(call.x, call.y, kOp);
  require_same_size(call.x, call.y, kOp);
  call.x_channel = element_stride(x, 1), call.y_channel = element_stride(out, 1);
  if (x.size() == 0) return;
  if (x.size() < kParallelElements) nthreads = 1;
  submit(
      call, [](auto& c) { return Slots{slot(c.x.data), slot(c.y.data)}; }, nullptr, FASTNETS_CALL(relayout),
      nthreads);
}

}  // namespace

void register_relayout(py::module_& m) {
  m.def(kOp, &relayout, py::arg("x"), py::arg("out"), py::arg("nthreads"));
}

}  // namespace fastnets
