// fastnets._C.roi_align: checks the arrays, then calls the kernel of the active ISA level.
#include "cpu/roi_align.h"

#include <cmath>

#include "ops/arrays.h"

namespace fastnets {
namespace {

namespace py = pybind11;

const char* const kRoiAlign = "roi_align";

// Coordinates are kept where the number of samples of an adaptive bin stays sensible.
constexpr float kFarthest = 1e6F;

void require_boxes(const py::array& boxes, const RoiAlignCall& call) {
  require_array<float>(boxes, kRoiAlign, "boxes", 2);
  require(boxes.shape(0) == call.y.batch && boxes.shape(1) == 5,
          std::string(kRoiAlign) + ": boxes has shape " + shape_text(boxes) + ": pass (" +
              std::to_string(call.y.batch) + ", 5), image, x1, y1, x2, y2");
  require((boxes.flags() & py::array::c_style) != 0,
          std::string(kRoiAlign) + ": boxes must be contiguous: pass a copy");
  const auto* values = static_cast<const float*>(boxes.data());
  for (int64_t i = 0; i < call.y.batch; ++i, values += 5) {
    const bool image = values[0] >= 0 && values[0] < static_cast<float>(call.x.batch);
    require(image, std::string(kRoiAlign) + ": boxes[" + std::to_string(i) + "] names image " +
                       std::to_string(values[0]) + ": pass 0 to " + std::to_string(call.x.batch - 1));
    for (int k = 1; k < 5; ++k) {
      require(std::fabs(values[k] * call.scale) <= kFarthest,
              std::string(kRoiAlign) + ": boxes[" + std::to_string(i) + "] reaches " +
                  std::to_string(values[k]) + ": pass coordinates within a million pixels");
    }
  }
}

void roi_align(const py::array& x, const py::array& boxes, const py::array& out, float scale, int64_t samples,
               bool aligned, int nthreads) {
  RoiAlignCall call{};
  call.x = input_pixels(x, kRoiAlign, "x");
  call.y = output_pixels(out, kRoiAlign, "out");
  call.scale = scale, call.samples = samples, call.aligned = aligned;
  require(call.x.channels == call.y.channels && call.x.size[0] == 1 && call.y.size[0] == 1,
          std::string(kRoiAlign) + ": x and out must have one z plane and the same channels");
  require(samples >= 0,
          std::string(kRoiAlign) + ": samples is " + std::to_string(samples) + ": pass 0 or more");
  require_boxes(boxes, call);
  if (out.size() == 0) return;
  require(x.size() > 0, std::string(kRoiAlign) + ": x has no pixels: pass some");
  call.boxes = static_cast<const float*>(boxes.data());
  if (out.size() < kParallelElements) nthreads = 1;
  submit(
      call, [](auto& c) { return Slots{slot(c.x.data), slot(c.y.data)}; }, nullptr, FASTNETS_CALL(roi_align),
      nthreads);
}

}  // namespace

void register_roi_align(py::module_& m) {
  m.def(kRoiAlign, &roi_align, py::arg("x"), py::arg("boxes"), py::arg("out"), py::arg("scale"),
        py::arg("samples"), py::arg("aligned"), py::arg("nthreads"));
}

}  // namespace fastnets
