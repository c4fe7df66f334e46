// fastnets._C.attention: checks the arrays, then calls the kernel of the active ISA level.
#include "cpu/attention.h"

#include "ops/arrays.h"

namespace fastnets {
namespace {

namespace py = pybind11;

const char* const kAttention = "attention";

// The rows of `array`, (group, image, head, row, element), whose elements must lie together.
template <class Void>
HeadRows<Void> rows_of(const py::array& array, const std::string& name) {
  require(array.size() == 0 || array.shape(4) == 1 || element_stride(array, 4) == 1,
          std::string(kAttention) + ": " + name + " must have the elements of a row adjacent: pass a copy");
  HeadRows<Void> rows{const_cast<void*>(array.data()), {}};
  for (int i = 0; i < 4; ++i) rows.stride[i] = element_stride(array, i);
  return rows;
}

HeadRows<const void> input_rows(const py::array& array, const std::string& name, Element element,
                                std::initializer_list<int64_t> shape, const std::string& expected) {
  require_elements(array, kAttention, name, 5, element);
  require_shape(array, shape, kAttention, name, expected);
  return rows_of<const void>(array, name);
}

ScoreTerm term_of(const std::optional<py::array>& array, const AttentionCall& call, const std::string& name) {
  ScoreTerm term{};
  if (!array) return term;
  term.element = require_elements(*array, kAttention, name, 5);
  require_shape(*array, {call.batch[0], call.batch[1], call.batch[2], call.queries, call.keys}, kAttention,
                name, "a number for each score, expanded where they repeat");
  term.rows = rows_of<const void>(*array, name);
  return term;
}

void attention(const py::array& q, const py::array& k, const py::array& v, const py::array& out,
               const py::array& scale, const std::optional<py::array>& bias,
               const std::optional<py::array>& mask, int nthreads) {
  const std::string op = kAttention;
  AttentionCall call{};
  call.element = require_elements(q, op, "q", 5);
  for (int i = 0; i < 3; ++i) call.batch[i] = q.shape(i);
  call.queries = q.shape(3), call.depth = q.shape(4);
  require_elements(k, op, "k", 5);
  require_elements(v, op, "v", 5);
  call.keys = k.shape(3), call.width = v.shape(4);
  require(call.keys > 0 || q.size() == 0, op + ": k has no rows: pass one or more");
  const int64_t* batch = call.batch;
  call.q = rows_of<const void>(q, "q");
  call.k = input_rows(k, "k", call.element, {batch[0], batch[1], batch[2], call.keys, call.depth},
                      "the batch, heads and depth of q");
  call.v = input_rows(v, "v", call.element, {batch[0], batch[1], batch[2], call.keys, call.width},
                      "the batch, heads and rows of k");
  require_elements(out, op, "out", 5, call.element);
  require_output(out, op, "out");
  require_shape(out, {batch[0], batch[1], batch[2], call.queries, call.width}, op, "out",
                "the batch, heads and rows of q, and the width of v");
  call.y = rows_of<void>(out, "out");
  call.scale = vector_of<float>(scale, batch[2], op, "scale");
  call.terms[0] = term_of(bias, call, "bias");
  call.terms[1] = term_of(mask, call, "mask");
  require(nthreads >= 1, op + ": nthreads is " + std::to_string(nthreads) + ": pass 1 or more");
  require(batch[0] * batch[1] * batch[2] * call.queries <= kMostRows,
          op + ": q has too many rows: pass at most " + std::to_string(kMostRows) + " at a time");
  if (out.size() == 0) return;
  if (out.size() * call.keys < kParallelProducts) nthreads = 1;
  submit(
      call,
      [](auto& c) {
        return Slots{slot(c.q.data),
                     slot(c.k.data),
                     slot(c.v.data),
                     slot(c.y.data),
                     slot(c.terms[0].rows.data),
                     slot(c.terms[1].rows.data)};
      },
      FASTNETS_CALL(attention_scratch), FASTNETS_CALL(attention), nthreads);
}

}  // namespace

void register_attention(py::module_& m) {
  m.def(kAttention, &attention, py::arg("q"), py::arg("k"), py::arg("v"), py::arg("out"), py::arg("scale"),
        py::arg("bias"), py::arg("mask"), py::arg("nthreads"));
}

}  // namespace fastnets
