// fastnets._C.combine: checks the arrays, then calls the kernel of the active ISA level.
#include "cpu/combine.h"

#include "ops/arrays.h"

namespace fastnets {
namespace {

namespace py = pybind11;

const char* const kCombine = "combine";

// `array` with strides of 0 where it has one position and y has more.
ConstAnyPixels repeated(const py::array& array, const AnyPixels& y) {
  ConstAnyPixels other = any_input(array, kCombine, "other", y.element);
  const int64_t have[4] = {other.batch, other.size[0], other.size[1], other.size[2]};
  const int64_t want[4] = {y.batch, y.size[0], y.size[1], y.size[2]};
  bool fits = other.channels == y.channels || other.channels == 1;
  for (int i = 0; i < 4; ++i) {
    fits = fits && (have[i] == want[i] || have[i] == 1);
    if (have[i] == 1) other.stride[i] = 0;
  }
  require(fits, std::string(kCombine) + ": other has shape " + shape_text(array) +
                    ": pass, along each axis, the size of x or 1");
  return other;
}

void combine(const py::array& x, const py::array& other, const py::array& out, int kind, int activation,
             float alpha, float beta, int nthreads) {
  CombineCall call{};
  call.x = any_input(x, kCombine, "x");
  call.y = any_output(out, kCombine, "out", call.x.element);
  require_same_channels(call.x, call.y, kCombine);
  require_same_size(call.x, call.y, kCombine);
  call.other = repeated(other, call.y);
  call.one_channel = call.other.channels == 1 && call.y.channels > 1;
  require(kind >= 0 && kind <= 4,
          std::string(kCombine) + ": kind is " + std::to_string(kind) + ": pass 0 to 4");
  call.kind = static_cast<Combine>(kind);
  call.epilogue =
      epilogue_of(call.y, std::nullopt, std::nullopt, std::nullopt, activation, alpha, beta, kCombine);
  if (x.size() == 0) return;
  if (x.size() < kParallelElements) nthreads = 1;
  submit(
      call, [](auto& c) { return Slots{slot(c.x.data), slot(c.other.data), slot(c.y.data)}; }, nullptr,
      FASTNETS_CALL(combine), nthreads);
}

}  // namespace

void register_combine(py::module_& m) {
  m.def(kCombine, &combine, py::arg("x"), py::arg("other"), py::arg("out"), py::arg("kind"),
        py::arg("activation"), py::arg("alpha"), py::arg("beta"), py::arg("nthreads"));
}

}  // namespace fastnets
