// fastnets._C.matmul: checks the arrays, then calls the kernel of the active ISA level.
#include "cpu/matmul.h"

#include "ops/arrays.h"

namespace fastnets {
namespace {

namespace py = pybind11;

const char* const kMatmul = "matmul";

// Columns adjacent, or, where that will do, rows.
template <class Void>
Matrices<Void> matrices_of(const py::array& array, const std::string& name, bool rows_do) {
  Matrices<Void> found{const_cast<void*>(array.data()), {}};
  for (int i = 0; i < 5; ++i) found.stride[i] = element_stride(array, i);
  // An axis of one element has no stride: kernels look at that of columns.
  if (array.shape(4) <= 1) found.stride[4] = 1;
  if (rows_do && array.shape(3) <= 1 && found.stride[4] != 1) found.stride[3] = 1;
  require(array.size() == 0 || found.stride[4] == 1 || (rows_do && found.stride[3] == 1),
          std::string(kMatmul) + ": " + name + " must have its columns adjacent" +
              (rows_do ? ", or its rows" : "") + ": pass a copy");
  return found;
}

void matmul(const py::array& a, const py::array& b, const py::array& out, int nthreads) {
  const std::string op = kMatmul;
  MatmulCall call{};
  call.element = require_elements(a, op, "a", 5);
  require_elements(b, op, "b", 5, call.element);
  require_elements(out, op, "out", 5, call.element);
  require_output(out, op, "out");
  for (int i = 0; i < 3; ++i) call.batch[i] = a.shape(i);
  call.rows = a.shape(3), call.depth = a.shape(4), call.columns = b.shape(4);
  const int64_t* batch = call.batch;
  require_shape(b, {batch[0], batch[1], batch[2], call.depth, call.columns}, op, "b",
                "the batch of a, and as many rows as a has columns");
  require_shape(out, {batch[0], batch[1], batch[2], call.rows, call.columns}, op, "out",
                "the batch and rows of a, and the columns of b");
  require(call.depth > 0 || out.size() == 0, op + ": a has no columns: pass one or more");
  require(nthreads >= 1, op + ": nthreads is " + std::to_string(nthreads) + ": pass 1 or more");
  require(batch[0] * batch[1] * batch[2] * call.rows * ((call.columns + 255) / 256) <= kMostRows,
          op + ": a has too many rows: pass fewer at a time");
  call.a = matrices_of<const void>(a, "a", false);
  call.b = matrices_of<const void>(b, "b", true);
  call.y = matrices_of<void>(out, "out", false);
  if (out.size() == 0) return;
  if (out.size() * call.depth < kParallelProducts) nthreads = 1;
  submit(
      call, [](auto& c) { return Slots{slot(c.a.data), slot(c.b.data), slot(c.y.data)}; },
      FASTNETS_CALL(matmul_scratch), FASTNETS_CALL(matmul), nthreads);
}

}  // namespace

void register_matmul(py::module_& m) {
  m.def(kMatmul, &matmul, py::arg("a"), py::arg("b"), py::arg("out"), py::arg("nthreads"));
}

}  // namespace fastnets
