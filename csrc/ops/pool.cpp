// fastnets._C.pool: checks the arrays, then calls the kernel of the active ISA level.
#include "cpu/pool.h"

#include <array>

#include "ops/arrays.h"

namespace fastnets {
namespace {

namespace py = pybind11;

using Axes = std::array<int64_t, 3>;

const char* const kPool = "pool";

bool is_global(const PoolCall& c) {
  bool whole = !c.adaptive;
  for (int i = 0; i < 3; ++i)
    whole = whole && c.window[i] == c.x.size[i] && c.pad[i] == 0 && c.y.size[i] == 1;
  return whole && c.dilation[0] == 1 && c.dilation[1] == 1 && c.dilation[2] == 1;
}

void pool(const py::array& x, const py::array& out, const Axes& window, const Axes& stride_of,
          const Axes& pad, const Axes& dilation, bool average, bool count_pad, float divisor, bool adaptive,
          int nthreads) {
  PoolCall call{};
  call.x = any_input(x, kPool, "x");
  call.y = any_output(out, kPool, "out", call.x.element);
  require_same_channels(call.x, call.y, kPool);
  for (int i = 0; i < 3; ++i) {
    call.window[i] = window[i], call.stride[i] = stride_of[i], call.pad[i] = pad[i],
    call.dilation[i] = dilation[i];
    require(window[i] >= 1 && stride_of[i] >= 1 && dilation[i] >= 1 && pad[i] >= 0 &&
                (!average || dilation[i] == 1),
            std::string(kPool) +
                ": window, stride, dilation are 1 or more, padding 0 or more, and averages undilated");
    require(call.x.size[i] > 0 || out.size() == 0, std::string(kPool) + ": x has no pixels: pass some");
  }
  if (out.size() == 0) return;
  call.average = average, call.count_pad = count_pad, call.divisor = divisor, call.adaptive = adaptive;
  if (x.size() < kParallelElements) nthreads = 1;
  const auto tensors = [](auto& c) { return Slots{slot(c.x.data), slot(c.y.data)}; };
  if (is_global(call)) {
    submit(call, tensors, FASTNETS_CALL(pool_global_scratch), FASTNETS_CALL(pool_global), nthreads);
  } else {
    submit(call, tensors, nullptr, FASTNETS_CALL(pool), nthreads);
  }
}

}  // namespace

void register_pool(py::module_& m) {
  m.def(kPool, &pool, py::arg("x"), py::arg("out"), py::arg("window"), py::arg("stride"), py::arg("pad"),
        py::arg("dilation"), py::arg("average"), py::arg("count_pad"), py::arg("divisor"),
        py::arg("adaptive"), py::arg("nthreads"));
}

}  // namespace fastnets
