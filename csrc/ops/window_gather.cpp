// fastnets._C.window_gather: copies boxes of images into a batch of windows. Bytes of any dtype, by memcpy,
// so there is no kernel a level: the C library has its own.
#include <cstring>

#include "ops/windows.h"

namespace fastnets {
namespace {

namespace py = pybind11;

const char* const kOp = "window_gather";

constexpr int64_t kParallelBytes = 1 << 17;

void window_gather(py::array windows, const py::array& image, const py::array& starts, int nthreads) {
  require(windows.dtype().equal(image.dtype()) && windows.ndim() == image.ndim(),
          std::string(kOp) + ": windows and image differ in dtype or in the number of axes: pass the same");
  require(windows.writeable(),
          std::string(kOp) + ": windows is read-only: pass an array that can be written");
  require(nthreads >= 1, std::string(kOp) + ": nthreads is " + std::to_string(nthreads) + ": pass 1 or more");
  const Windowed to(windows, kOp, "windows"), from(image, kOp, "image");
  const std::vector<int64_t> places =
      window_starts(starts, from, to, static_cast<int>(image.ndim()) - 2, kOp);
  if (to.empty()) return;
  for (int axis = 0; axis < 5; ++axis) {
    require(to.shape[axis] == 1 || to.strides[axis] > 0,
            std::string(kOp) + ": windows repeats its elements: pass a tensor that is not expanded");
  }
  const bool pixels = runs_hold_channels(to, from, kOp);
  const int64_t item = image.itemsize(), lines = pixels ? 1 : to.shape[1];
  const int64_t bytes = item * to.shape[4] * (pixels ? to.shape[1] : 1);
  auto* const target = static_cast<char*>(windows.mutable_data());
  const auto* const source = static_cast<const char*>(image.data());
  const int threads = windows.nbytes() < kParallelBytes ? 1 : nthreads;
  const py::gil_scoped_release release;
#pragma omp parallel for collapse(4) num_threads(threads)
  for (int64_t i = 0; i < to.shape[0]; ++i) {
    for (int64_t line = 0; line < lines; ++line) {
      for (int64_t z = 0; z < to.shape[2]; ++z) {
        for (int64_t y = 0; y < to.shape[3]; ++y) {
          const int64_t* p = places.data() + 4 * i;
          const int64_t at = i * to.strides[0] + line * to.strides[1] + z * to.strides[2] + y * to.strides[3];
          const int64_t in = p[0] * from.strides[0] + line * from.strides[1] + (p[1] + z) * from.strides[2] +
                             (p[2] + y) * from.strides[3] + p[3] * from.strides[4];
          std::memcpy(target + at * item, source + in * item, static_cast<size_t>(bytes));
        }
      }
    }
  }
}

}  // namespace

void register_window_gather(py::module_& m) {
  m.def(kOp, &window_gather, py::arg("windows"), py::arg("image"), py::arg("starts"), py::arg("nthreads"));
}

}  // namespace fastnets
