// fastnets._C.pointwise: checks the arrays, then calls the kernel of the active ISA level.
#include "cpu/pointwise.h"

#include "common/arguments.h"

namespace fastnets {
namespace {

namespace py = pybind11;

const char* const kOp = "pointwise";

// Below this many elements a call costs less than waking the other threads.
constexpr int64_t kParallelElements = 1 << 15;

void pointwise(const py::array& x, const py::array& out, int activation, float alpha, float beta,
               int nthreads) {
  require_array<float>(x, kOp, "x", 1);
  require_array<float>(out, kOp, "out", 1);
  require_shape(out, {x.shape(0)}, kOp, "out", "the shape of x");
  require((x.size() <= 1) || (stride<float>(x, 0) == 1 && stride<float>(out, 0) == 1),
          std::string(kOp) + ": x and out must be contiguous: pass copies");
  require(out.writeable(), std::string(kOp) + ": out is read-only: pass an array that can be written");
  PointwiseCall call{};
  call.x = static_cast<const float*>(x.data());
  call.y = static_cast<float*>(const_cast<void*>(out.data()));
  call.count = x.size();
  call.epilogue.activation = activation_of(activation, kOp);
  call.epilogue.alpha = alpha;
  call.epilogue.beta = beta;
  const auto kernel = FASTNETS_CALL(pointwise);
  const py::gil_scoped_release release;
  run_team(x.size() < kParallelElements ? 1 : nthreads,
           [&](ThreadContext& context) { kernel(call, context); });
}

}  // namespace

void register_pointwise(py::module_& m) {
  m.def(kOp, &pointwise, py::arg("x"), py::arg("out"), py::arg("activation"), py::arg("alpha"),
        py::arg("beta"), py::arg("nthreads"));
}

}  // namespace fastnets
