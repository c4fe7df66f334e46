// fastnets._C.window_gather: copies boxes of images into a batch of windows. Bytes of any dtype, by memcpy,
// so there is no kernel a level: the C library has its own.
#include <cstring>

#include "common/threads.h"
#include "ops/windows.h"

namespace fastnets {
namespace {

namespace py = pybind11;

const char* const kWindowGather = "window_gather";

constexpr int64_t kParallelBytes = 1 << 17;

void window_gather(py::array windows, const py::array& image, const py::array& starts, int nthreads) {
  require(windows.dtype().equal(image.dtype()) && windows.ndim() == image.ndim(),
          std::string(kWindowGather) +
              ": windows and image differ in dtype or in the number of axes: pass the same");
  require(windows.writeable(),
          std::string(kWindowGather) + ": windows is read-only: pass an array that can be written");
  require(nthreads >= 1,
          std::string(kWindowGather) + ": nthreads is " + std::to_string(nthreads) + ": pass 1 or more");
  const Windowed to(windows, kWindowGather, "windows"), from(image, kWindowGather, "image");
  const std::vector<int64_t> places =
      window_starts(starts, from, to, static_cast<int>(image.ndim()) - 2, kWindowGather);
  if (to.empty()) return;
  for (int axis = 0; axis < 5; ++axis) {
    require(
        to.shape[axis] == 1 || to.strides[axis] > 0,
        std::string(kWindowGather) + ": windows repeats its elements: pass a tensor that is not expanded");
  }
  const bool pixels = runs_hold_channels(to, from, kWindowGather);
  const int64_t item = image.itemsize(), lines = pixels ? 1 : to.shape[1];
  const int64_t bytes = item * to.shape[4] * (pixels ? to.shape[1] : 1);
  auto* const target = static_cast<char*>(windows.mutable_data());
  const auto* const source = static_cast<const char*>(image.data());
  const py::gil_scoped_release release;
  run_team(windows.nbytes() < kParallelBytes ? 1 : nthreads, [&](ThreadContext& context) {
    const int64_t planes = lines * to.shape[2];
    for (int64_t plane; next_item(context, to.shape[0] * planes, plane);) {
      const int64_t i = plane / planes, line = plane % planes / to.shape[2], z = plane % to.shape[2];
      const int64_t* p = places.data() + 4 * i;
      char* at = target + item * (i * to.strides[0] + line * to.strides[1] + z * to.strides[2]);
      const char* in =
          source + item * (p[0] * from.strides[0] + line * from.strides[1] + (p[1] + z) * from.strides[2] +
                           p[2] * from.strides[3] + p[3] * from.strides[4]);
      for (int64_t y = 0; y < to.shape[3]; ++y) {
        std::memcpy(at + item * y * to.strides[3], in + item * y * from.strides[3],
                    static_cast<size_t>(bytes));
      }
    }
    finish(context);
  });
}

}  // namespace

void register_window_gather(py::module_& m) {
  m.def(kWindowGather, &window_gather, py::arg("windows"), py::arg("image"), py::arg("starts"),
        py::arg("nthreads"));
}

}  // namespace fastnets
