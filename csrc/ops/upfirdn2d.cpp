// fastnets._C.upfirdn2d: checks the arrays, then calls the kernel of the active ISA level.
#include "cpu/upfirdn2d.h"

#include <array>

#include "ops/arrays.h"

namespace fastnets {
namespace {

namespace py = pybind11;

using Pair = std::array<int64_t, 2>;  // y, x

const char* const kUpfirdn2d = "upfirdn2d";

void upfirdn2d(const py::array& x, const py::array& out, const py::array& kernel, const Pair& up,
               const Pair& down, const Pair& pad, float gain, int nthreads) {
  Upfirdn2dCall call{};
  call.x = input_pixels(x, kUpfirdn2d, "x");
  call.y = output_pixels(out, kUpfirdn2d, "out");
  require_same_channels(call.x, call.y, kUpfirdn2d);
  require(call.x.size[0] == 1 && call.y.size[0] == 1,
          std::string(kUpfirdn2d) + ": x and out are images: pass depth 1");
  require(kernel.ndim() == 1 || kernel.ndim() == 2,
          std::string(kUpfirdn2d) + ": kernel needs 1 or 2 dimensions");
  call.separable = kernel.ndim() == 1;
  require_array<float>(kernel, kUpfirdn2d, "kernel", call.separable ? 1 : 2);
  require((kernel.flags() & py::array::c_style) != 0 && kernel.size() > 0,
          std::string(kUpfirdn2d) + ": kernel must be contiguous and not empty: pass a copy");
  retain(kernel);
  call.filter = static_cast<const float*>(kernel.data());
  for (int i = 0; i < 2; ++i) {
    call.taps[i] = call.separable ? kernel.shape(0) : kernel.shape(i);
    call.up[i] = up[i], call.down[i] = down[i], call.pad[i] = pad[i];
    require(up[i] >= 1 && down[i] >= 1, std::string(kUpfirdn2d) + ": up and down must be 1 or more");
  }
  call.gain = gain;
  if (out.size() == 0) return;
  if (out.size() < kParallelElements) nthreads = 1;
  submit(
      call, [](auto& c) { return Slots{slot(c.x.data), slot(c.y.data)}; }, FASTNETS_CALL(upfirdn2d_scratch),
      FASTNETS_CALL(upfirdn2d), nthreads);
}

}  // namespace

void register_upfirdn2d(py::module_& m) {
  m.def(kUpfirdn2d, &upfirdn2d, py::arg("x"), py::arg("out"), py::arg("kernel"), py::arg("up"),
        py::arg("down"), py::arg("pad"), py::arg("gain"), py::arg("nthreads"));
}

}  // namespace fastnets
