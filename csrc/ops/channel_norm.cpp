// fastnets._C.channel_norm: checks the arrays, then calls the kernel of the active ISA level.
#include "cpu/channel_norm.h"

#include "ops/arrays.h"

namespace fastnets {
namespace {

namespace py = pybind11;

const char* const kChannelNorm = "channel_norm";

void channel_norm(const py::array& x, const py::array& out, int kind, float epsilon, int64_t window,
                  float factor, float power, float offset, const std::optional<py::array>& scale,
                  const std::optional<py::array>& shift, int activation, float alpha, float beta,
                  int nthreads) {
  ChannelNormCall call{};
  call.x = any_input(x, kChannelNorm, "x");
  call.y = any_output(out, kChannelNorm, "out", call.x.element);
  require_same_channels(call.x, call.y, kChannelNorm);
  require_same_size(call.x, call.y, kChannelNorm);
  require(kind >= 0 && kind <= 3,
          std::string(kChannelNorm) + ": kind is " + std::to_string(kind) + ": pass 0 to 3");
  require(window >= 1,
          std::string(kChannelNorm) + ": window is " + std::to_string(window) + ": pass 1 or more");
  require(nthreads >= 1,
          std::string(kChannelNorm) + ": nthreads is " + std::to_string(nthreads) + ": pass 1 or more");
  call.kind = static_cast<ChannelNorm>(kind);
  call.epsilon = epsilon, call.window = window, call.factor = factor, call.power = power,
  call.offset = offset;
  call.epilogue = epilogue_of(call.y, scale, shift, std::nullopt, activation, alpha, beta, kChannelNorm);
  if (x.size() == 0) return;
  if (x.size() < kParallelElements) nthreads = 1;
  submit(
      call, [](auto& c) { return Slots{slot(c.x.data), slot(c.y.data)}; },
      FASTNETS_CALL(channel_norm_scratch), FASTNETS_CALL(channel_norm), nthreads);
}

}  // namespace

void register_channel_norm(py::module_& m) {
  m.def(kChannelNorm, &channel_norm, py::arg("x"), py::arg("out"), py::arg("kind"), py::arg("epsilon"),
        py::arg("window"), py::arg("factor"), py::arg("power"), py::arg("offset"), py::arg("scale"),
        py::arg("shift"), py::arg("activation"), py::arg("alpha"), py::arg("beta"), py::arg("nthreads"));
}

}  // namespace fastnets
