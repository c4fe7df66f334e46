// fastnets._C.PackedInvertedBottleneck: a 1x1, a depthwise and a 1x1 convolution of images, packed, run on
// any number of inputs.
#include "cpu/inverted_bottleneck.h"

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

using Pair = std::array<int64_t, 2>;
using InnerTerms =
    std::tuple<std::optional<py::array>, int, float, float>;  // shift, activation, its parameters

const char* const kInvertedBottleneck = "inverted_bottleneck";

class PackedInvertedBottleneck {
 public:
  PackedInvertedBottleneck(const py::array& expand, const py::array& depthwise, const py::array& project,
                           int nthreads) {
    element_ = require_elements(expand, kInvertedBottleneck, "expand", 2);
    require_elements(depthwise, kInvertedBottleneck, "depthwise", 4, element_);
    require_elements(project, kInvertedBottleneck, "project", 2, element_);
    require((expand.flags() & depthwise.flags() & project.flags() & py::array::c_style) != 0,
            "inverted_bottleneck: the weights must be contiguous: pass copies");
    middle_ = depthwise.shape(0), cin_ = expand.shape(1), cout_ = project.shape(0);
    kernel_ = {depthwise.shape(2), depthwise.shape(3)};
    require(expand.shape(0) == middle_ && depthwise.shape(1) == 1 && project.shape(1) == middle_,
            "inverted_bottleneck: the weights have shapes " + shape_text(expand) + ", " +
                shape_text(depthwise) + " and " + shape_text(project) +
                ": pass (M, Cin), (M, 1, y, x) and (Cout, M)");
    const ProductPacking packing = product_packing(element_);
    const ConvWeights first{expand.data(), element_, middle_, cin_, 1, {1, 1, 1}};
    const ConvWeights second{depthwise.data(), element_, middle_, 1, middle_, {1, kernel_[0], kernel_[1]}};
    const ConvWeights third{project.data(), element_, cout_, middle_, 1, {1, 1, 1}};
    const int64_t size = element_bytes(element_);
    const int64_t sizes[] = {
        packed_product_elements(first, packing) * size,
        packed_grouped_elements(second, packing.lanes) * static_cast<int64_t>(sizeof(float)),
        packed_product_elements(third, packing) * size};
    for (int64_t bytes : sizes) bytes_ += slice_bytes<char>(bytes);
    Arena arena(weights_.at_least(std::max(bytes_, kAlignment)));
    char* const to[] = {arena.take<char>(sizes[0]), arena.take<char>(sizes[1]), arena.take<char>(sizes[2])};
    expand_ = to[0], depthwise_ = reinterpret_cast<float*>(to[1]), project_ = to[2];
    const py::gil_scoped_release release;
    run_team(nthreads, [&](ThreadContext& context) {
      pack_product(first, packing, expand_, context);
      pack_grouped(second, packing.lanes, depthwise_, context);
      pack_product(third, packing, project_, context);
    });
  }

  int64_t bytes() const { return bytes_; }

  void run(const py::array& x, const py::array& out, const Pair& stride_of, const Pair& pad,
           const InnerTerms& before, const InnerTerms& between, const InnerTerms& after,
           const std::optional<py::array>& residual, bool stream, int nthreads) const {
    const ConstAnyPixels from = any_input(x, kInvertedBottleneck, "x", element_);
    const AnyPixels to = any_output(out, kInvertedBottleneck, "out", element_);
    require(nthreads >= 1, "inverted_bottleneck: nthreads must be 1 or more");
    require(from.channels == cin_ && to.channels == cout_ && from.batch == to.batch,
            "inverted_bottleneck: x has shape " + shape_text(x) + " and out " + shape_text(out) + ": pass " +
                std::to_string(cin_) + " and " + std::to_string(cout_) + " channels, and one batch");
    require(from.size[0] == 1 && to.size[0] == 1,
            "inverted_bottleneck: x has shape " + shape_text(x) + ": pass images, (N, C, 1, y, x)");
    InvertedBottleneckCall call{};
    ConvShape& s = call.shape;
    s.batch = from.batch, s.cin = s.cout = s.groups = middle_;
    for (int i = 0; i < 3; ++i) {
      s.in[i] = from.size[i], s.out[i] = to.size[i], s.dilation[i] = 1;
      s.kernel[i] = i == 0 ? 1 : kernel_[i - 1], s.stride[i] = i == 0 ? 1 : stride_of[i - 1];
      s.pad[i] = i == 0 ? 0 : pad[i - 1];
      require(s.stride[i] >= 1 && s.pad[i] >= 0,
              "inverted_bottleneck: strides must be 1 or more, and padding 0 or more");
    }
    call.element = element_, call.cin = cin_, call.cout = cout_;
    call.x = from.data, call.y = to.data;
    std::copy(from.stride, from.stride + 4, call.x_stride);
    std::copy(to.stride, to.stride + 4, call.y_stride);
    call.expand = expand_, call.depthwise = depthwise_, call.project = project_;
    AnyPixels middle = to;
    middle.channels = middle_;
    call.before = terms_of(before, middle, std::nullopt);
    call.between = terms_of(between, middle, std::nullopt);
    call.after = terms_of(after, to, residual);
    call.stream = stream && can_stream(call.y, call.y_stride, cout_, FASTNETS_CALL(conv_lanes)(), call.after);
    if (out.size() == 0) return;
    if (s.out_pixels() * middle_ * (cin_ + cout_ + s.taps()) < kParallelProducts) nthreads = 1;
    retain(py::cast(this));
    submit(
        call, [](auto& c) { return Slots{slot(c.x), slot(c.y), slot(c.after.residual)}; },
        FASTNETS_CALL_OF(element_, inverted_bottleneck_scratch),
        FASTNETS_CALL_OF(element_, inverted_bottleneck), nthreads);
  }

 private:
  static Epilogue terms_of(const InnerTerms& terms, const AnyPixels& y,
                           const std::optional<py::array>& residual) {
    const auto& [shift, activation, alpha, beta] = terms;
    return epilogue_of(y, std::nullopt, shift, residual, activation, alpha, beta, kInvertedBottleneck);
  }

  Element element_;
  int64_t cin_, middle_, cout_;
  Pair kernel_;
  int64_t bytes_ = 0;
  Buffer weights_;
  void* expand_;
  float* depthwise_;
  void* project_;
};

}  // namespace

void register_inverted_bottleneck(py::module_& m) {
  py::class_<PackedInvertedBottleneck>(m, "PackedInvertedBottleneck")
      .def(py::init<const py::array&, const py::array&, const py::array&, int>(), py::arg("expand"),
           py::arg("depthwise"), py::arg("project"), py::arg("nthreads"))
      .def_property_readonly("bytes", &PackedInvertedBottleneck::bytes)
      .def("run", &PackedInvertedBottleneck::run, py::arg("x"), py::arg("out"), py::arg("stride"),
           py::arg("pad"), py::arg("before"), py::arg("between"), py::arg("after"), py::arg("residual"),
           py::arg("stream"), py::arg("nthreads"));
}

}  // namespace fastnets
