// fastnets._C.PackedSeparable: a depthwise and a 1x1 convolution, packed, run on any number of inputs.
#include "cpu/separable.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <optional>
#include <tuple>

#include "common/scratch.h"
#include "ops/arrays.h"
#include "ops/packing.h"

namespace fastnets {
namespace {

namespace py = pybind11;

using Axes = std::array<int64_t, 3>;
// scale, shift, activation and its two parameters
using SeparableTerms = std::tuple<std::optional<py::array>, std::optional<py::array>, int, float, float>;

const char* const kSeparable = "separable";

class PackedSeparable {
 public:
  PackedSeparable(const py::array& depthwise, const py::array& pointwise, int nthreads) {
    element_ = require_elements(depthwise, kSeparable, "depthwise", 5);
    require_elements(pointwise, kSeparable, "pointwise", 2, element_);
    require((depthwise.flags() & pointwise.flags() & py::array::c_style) != 0,
            "separable: the weights must be contiguous: pass copies");
    middle_ = depthwise.shape(0), cout_ = pointwise.shape(0);
    require(depthwise.shape(1) == 1 && pointwise.shape(1) == middle_,
            "separable: depthwise has shape " + shape_text(depthwise) + " and pointwise " +
                shape_text(pointwise) + ": pass (M, 1, z, y, x) and (Cout, M)");
    for (int i = 0; i < 3; ++i) kernel_[i] = depthwise.shape(2 + i);
    const ProductPacking packing = product_packing(element_);
    const ConvWeights first{
        depthwise.data(), element_, middle_, 1, middle_, {kernel_[0], kernel_[1], kernel_[2]}};
    const ConvWeights second{pointwise.data(), element_, cout_, middle_, 1, {1, 1, 1}};
    const int64_t floats = packed_grouped_elements(first, packing.lanes);
    const int64_t elements = packed_product_elements(second, packing);
    bytes_ = slice_bytes<float>(floats) + elements * element_bytes(element_);
    Arena arena(weights_.at_least(std::max(bytes_, kAlignment)));
    float* const to_first = arena.take<float>(floats);
    void* const to_second = arena.take<char>(elements * element_bytes(element_));
    depthwise_ = to_first, pointwise_ = to_second;
    const py::gil_scoped_release release;
    run_team(nthreads, [&](ThreadContext& context) {
      pack_grouped(first, packing.lanes, to_first, context);
      pack_product(second, packing, to_second, context);
    });
  }

  int64_t bytes() const { return bytes_; }

  void run(const py::array& x, const py::array& out, const Axes& stride_of, const Axes& pad,
           const Axes& dilation, const SeparableTerms& between, const SeparableTerms& after,
           const std::optional<py::array>& residual, int64_t block, bool strassen, bool stream,
           int nthreads) const {
    const ConstAnyPixels from = any_input(x, kSeparable, "x", element_);
    const AnyPixels to = any_output(out, kSeparable, "out", element_);
    require(nthreads >= 1 && block >= 1, "separable: nthreads and block must be 1 or more");
    require(!strassen || element_ == Element::float32, "separable: strassen needs float32");
    SeparableCall call{};
    ConvShape& s = call.depthwise.shape;
    s.batch = x.shape(0), s.cin = s.groups = x.shape(1), s.cout = middle_;
    require(s.cin > 0 && middle_ % s.cin == 0, "separable: x has shape " + shape_text(x) +
                                                   ": pass a divisor of " + std::to_string(middle_) +
                                                   " channels");
    require(out.shape(0) == s.batch && out.shape(1) == cout_, "separable: out has shape " + shape_text(out) +
                                                                  ": pass the batch of x and " +
                                                                  std::to_string(cout_) + " channels");
    for (int i = 0; i < 3; ++i) {
      s.in[i] = x.shape(2 + i), s.out[i] = out.shape(2 + i);
      s.kernel[i] = kernel_[i], s.stride[i] = stride_of[i], s.pad[i] = pad[i], s.dilation[i] = dilation[i];
      require(s.stride[i] >= 1 && s.dilation[i] >= 1 && s.pad[i] >= 0,
              "separable: strides and dilations must be 1 or more, and padding 0 or more");
    }
    call.depthwise.element = element_;
    call.depthwise.x = from.data, call.y = to.data;
    std::copy(from.stride, from.stride + 4, call.depthwise.x_stride);
    std::copy(to.stride, to.stride + 4, call.y_stride);
    call.depthwise.weights = depthwise_;
    AnyPixels middle = to;
    middle.channels = middle_;
    call.depthwise.epilogue = terms_of(between, middle, std::nullopt);
    call.cout = cout_, call.weights = pointwise_;
    call.epilogue = terms_of(after, to, residual);
    call.block = block, call.strassen = strassen;
    call.stream =
        stream && can_stream(call.y, call.y_stride, cout_, FASTNETS_CALL(conv_lanes)(), call.epilogue);
    if (out.size() == 0) return;
    if (s.out_pixels() * middle_ * (cout_ + s.taps()) < kParallelProducts) nthreads = 1;
    retain(py::cast(this));
    submit(
        call, [](auto& c) { return Slots{slot(c.depthwise.x), slot(c.y), slot(c.epilogue.residual)}; },
        FASTNETS_CALL_OF(element_, separable_scratch), FASTNETS_CALL_OF(element_, separable), nthreads);
  }

 private:
  static Epilogue terms_of(const SeparableTerms& terms, const AnyPixels& y,
                           const std::optional<py::array>& residual) {
    const auto& [scale, shift, activation, alpha, beta] = terms;
    return epilogue_of(y, scale, shift, residual, activation, alpha, beta, kSeparable);
  }

  Element element_;
  int64_t middle_, cout_;
  Axes kernel_;
  int64_t bytes_ = 0;
  Buffer weights_;
  const float* depthwise_;
  const void* pointwise_;
};

}  // namespace

void register_separable(py::module_& m) {
  py::class_<PackedSeparable>(m, "PackedSeparable")
      .def(py::init<const py::array&, const py::array&, int>(), py::arg("depthwise"), py::arg("pointwise"),
           py::arg("nthreads"))
      .def_property_readonly("bytes", &PackedSeparable::bytes)
      .def("run", &PackedSeparable::run, py::arg("x"), py::arg("out"), py::arg("stride"), py::arg("pad"),
           py::arg("dilation"), py::arg("between"), py::arg("after"), py::arg("residual"), py::arg("block"),
           py::arg("strassen"), py::arg("stream"), py::arg("nthreads"));
}

}  // namespace fastnets
