// fastnets._C.nms: checks the arrays, then calls the kernel of the active ISA level.
#include "cpu/nms.h"

#include "ops/arrays.h"

namespace fastnets {
namespace {

namespace py = pybind11;

const char* const kNms = "nms";

void nms(const py::array& boxes, const py::array& starts, const py::array& dropped, float threshold,
         int nthreads) {
  require_array<float>(boxes, kNms, "boxes", 2);
  require(boxes.shape(0) == 5 && (boxes.flags() & py::array::c_style) != 0,
          std::string(kNms) + ": boxes has shape " + shape_text(boxes) +
              ": pass x1, y1, x2, y2 and areas, contiguous");
  NmsCall call{};
  call.count = boxes.shape(1), call.groups = starts.size() - 1, call.threshold = threshold;
  require(starts.ndim() == 1 && starts.size() >= 1,
          std::string(kNms) + ": starts must hold the groups and their end");
  call.boxes = static_cast<const float*>(boxes.data());
  call.starts = vector_of<int64_t>(starts, starts.size(), kNms, "starts");
  require(dropped.writeable(),
          std::string(kNms) + ": dropped is read-only: pass an array that can be written");
  call.dropped = const_cast<float*>(vector_of<float>(dropped, call.count, kNms, "dropped"));
  bool rising = call.starts[0] >= 0 && call.starts[call.groups] <= call.count;
  for (int64_t g = 0; g < call.groups; ++g) rising = rising && call.starts[g] <= call.starts[g + 1];
  require(rising, std::string(kNms) + ": starts must rise from 0 to the number of boxes");
  if (call.count * call.count < kParallelElements) nthreads = 1;
  const auto kernel = FASTNETS_CALL(nms);
  const py::gil_scoped_release release;
  run_team(nthreads, [&](ThreadContext& context) { kernel(call, context); });
}

}  // namespace

void register_nms(py::module_& m) {
  m.def(kNms, &nms, py::arg("boxes"), py::arg("starts"), py::arg("dropped"), py::arg("threshold"),
        py::arg("nthreads"));
}

}  // namespace fastnets
