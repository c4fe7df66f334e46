// fastnets._C.norm and moments: check the arrays, then call the kernels of the active ISA level.
#include "cpu/norm.h"

#include "ops/arrays.h"

namespace fastnets {
namespace {

namespace py = pybind11;

const char* const kNorm = "norm";

void require_moments(const py::array& moments, const ConstAnyPixels& x) {
  require_array<double>(moments, kNorm, "moments", 3);
  require((moments.shape(0) == x.batch || moments.shape(0) == 1) && moments.shape(1) == x.channels &&
              moments.shape(2) == 2,
          std::string(kNorm) + ": moments has shape " + shape_text(moments) +
              ": pass mean and variance of each channel, (batch or 1, channels, 2)");
  require((moments.flags() & py::array::c_style) != 0,
          std::string(kNorm) + ": moments must be contiguous: pass a copy");
}

void norm(const py::array& x, const py::array& out, int64_t groups, double epsilon,
          const std::optional<py::array>& moments, const std::optional<py::array>& scale,
          const std::optional<py::array>& shift, const std::optional<py::array>& residual, int activation,
          float alpha, float beta, int nthreads) {
  NormCall call{};
  call.x = any_input(x, kNorm, "x");
  call.y = any_output(out, kNorm, "out", call.x.element);
  require_same_channels(call.x, call.y, kNorm);
  require_same_size(call.x, call.y, kNorm);
  require(groups >= 1 && call.x.channels % groups == 0,
          std::string(kNorm) + ": groups is " + std::to_string(groups) +
              ": pass a divisor of the channels, " + std::to_string(call.x.channels));
  call.groups = groups, call.epsilon = epsilon;
  if (moments) {
    retain(*moments);
    require_moments(*moments, call.x);
    call.moments = static_cast<const double*>(moments->data());
    call.moments_stride = moments->shape(0) == 1 ? 0 : 2 * call.x.channels;
  }
  call.epilogue = epilogue_of(call.y, scale, shift, residual, activation, alpha, beta, kNorm);
  if (x.size() == 0) return;
  if (x.size() < kParallelElements) nthreads = 1;
  submit(
      call, [](auto& c) { return Slots{slot(c.x.data), slot(c.y.data), slot(c.epilogue.residual)}; },
      FASTNETS_CALL(norm_scratch), FASTNETS_CALL(norm), nthreads);
}

void moments(const py::array& x, const py::array& out, int nthreads) {
  MomentsCall call{};
  call.x = any_input(x, "moments", "x");
  require(out.writeable(), "moments: out is read-only: pass an array that can be written");
  require_moments(out, call.x);
  require(out.shape(0) == call.x.batch, "moments: out must have the batch of x");
  if (out.size() == 0) return;
  require(x.size() > 0, "moments: x has no pixels: pass some");
  call.moments = static_cast<double*>(const_cast<void*>(out.data()));
  if (x.size() < kParallelElements) nthreads = 1;
  submit(
      call, [](auto& c) { return Slots{slot(c.x.data), slot(c.moments)}; }, FASTNETS_CALL(moments_scratch),
      FASTNETS_CALL(moments), nthreads);
}

}  // namespace

void register_norm(py::module_& m) {
  m.def(kNorm, &norm, py::arg("x"), py::arg("out"), py::arg("groups"), py::arg("epsilon"), py::arg("moments"),
        py::arg("scale"), py::arg("shift"), py::arg("residual"), py::arg("activation"), py::arg("alpha"),
        py::arg("beta"), py::arg("nthreads"));
  m.def("moments", &moments, py::arg("x"), py::arg("out"), py::arg("nthreads"));
}

}  // namespace fastnets
