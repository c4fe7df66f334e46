// fastnets._C.relayout: checks the arrays, then calls the kernel of the active ISA level.
#include "cpu/relayout.h"

#include "ops/arrays.h"

namespace fastnets {
namespace {

namespace py = pybind11;

const char* const kRelayout = "relayout";

void relayout(const py::array& x, const py::array& out, int nthreads) {
  RelayoutCall call{};
  call.x.element = require_elements(x, kRelayout, "x", 5);
  call.y.element = require_elements(out, kRelayout, "out", 5);
  require_output(out, kRelayout, "out");
  set_sizes(call.x, x, kRelayout, "x");
  set_sizes(call.y, out, kRelayout, "out");
  require_same_channels(call.x, call.y, kRelayout);
  require_same_size(call.x, call.y, kRelayout);
  call.x_channel = element_stride(x, 1), call.y_channel = element_stride(out, 1);
  if (x.size() == 0) return;
  if (x.size() < kParallelElements) nthreads = 1;
  submit(
      call, [](auto& c) { return Slots{slot(c.x.data), slot(c.y.data)}; }, nullptr, FASTNETS_CALL(relayout),
      nthreads);
}

}  // namespace

void register_relayout(py::module_& m) {
  m.def(kRelayout, &relayout, py::arg("x"), py::arg("out"), py::arg("nthreads"));
}

}  // namespace fastnets
