// fastnets._C.PackedTransposed: a transposed convolution of kernel 4, stride 2 and padding 1 by Winograd's
// algorithm.
#include <array>

#include "common/conv_pack.h"
#include "common/scratch.h"
#include "cpu/conv.h"
#include "ops/arrays.h"

namespace fastnets {
namespace {

namespace py = pybind11;

using Axes = std::array<int64_t, 3>;

const char* const kConvTransposeWinograd = "conv_transpose";

class PackedTransposed {
 public:
  // weight: (phases, cout, cin, z, y, x), 2 along the axes that are transposed and 1 along z where it is
  // missing; phases in the order of ConvCall::transposed, the last axis's fastest.
  PackedTransposed(const py::array& weight, const Axes& tile, bool taps, int nthreads) : taps_(taps) {
    require_array<float>(weight, kConvTransposeWinograd, "weight", 6);
    require((weight.flags() & py::array::c_style) != 0,
            "conv_transpose: weight must be contiguous: pass a copy");
    const int64_t phases = weight.shape(0);
    cout_ = weight.shape(1), cin_ = weight.shape(2);
    ConvWeights w{weight.data(), Element::float32, phases * cout_, cin_, phases, {}};
    int64_t expected = 1;
    for (int i = 0; i < 3; ++i) {
      kernel_[i] = w.kernel[i] = weight.shape(3 + i);
      tile_[i] = static_cast<int>(tile[i]);
      expected *= kernel_[i];
    }
    const bool volume = kernel_ == Axes{2, 2, 2}, image = kernel_ == Axes{1, 2, 2};
    require((volume || image) && phases == expected,
            "conv_transpose: weight has shape " + shape_text(weight) +
                ": pass (4, cout, cin, 1, 2, 2) or (8, cout, cin, 2, 2, 2)");
    const bool made = image ? tile[0] == 1 && (tile[1] == 3 || tile[1] == 5 || tile[1] == 7)
                            : tile[0] == tile[1] && (tile[1] == 3 || tile[1] == 5);
    require(made && tile[1] == tile[2], "conv_transpose: there is no winograd kernel of these tiles");
    const int lanes = FASTNETS_CALL(conv_lanes)();
    require(!taps || cout_ % (int64_t{kPanelVectors} * lanes) == 0,
            "conv_transpose: winograd keeps taps only for whole panels of output channels");
    bytes_ = packed_winograd_elements(w, tile_, taps, lanes) * static_cast<int64_t>(sizeof(float));
    auto* const packed = static_cast<float*>(weights_.at_least(std::max(bytes_, kAlignment)));
    const py::gil_scoped_release release;
    run_team(nthreads,
             [&](ThreadContext& context) { pack_winograd(w, tile_, taps, lanes, packed, context); });
  }

  int64_t bytes() const { return bytes_; }

  // border: (z, y, x, cout), 3 along the axes that are transposed and 1 along others; see ConvCall.
  void run(const py::array& x, const py::array& out, const std::optional<py::array>& scale,
           const std::optional<py::array>& shift, const std::optional<py::array>& border,
           const std::optional<py::array>& residual, int activation, float alpha, float beta, int64_t block,
           bool share, bool stream, int nthreads) {
    ConvCall call{};
    ConvShape& s = call.shape;
    call.element = require_elements(x, kConvTransposeWinograd, "x", 5);
    const ConstAnyPixels from = any_input(x, kConvTransposeWinograd, "x", call.element);
    const AnyPixels to = any_output(out, kConvTransposeWinograd, "out", call.element);
    require(from.channels == cin_,
            "conv_transpose: x has shape " + shape_text(x) + ": pass " + std::to_string(cin_) + " channels");
    s.batch = from.batch, s.cin = cin_, s.cout = cout_, s.groups = 1;
    bool fits = to.batch == s.batch && to.channels == cout_;
    for (int i = 0; i < 3; ++i) {
      const bool two = kernel_[i] == 2;
      fits = fits && to.size[i] == (two ? 2 * from.size[i] : from.size[i]);
      s.in[i] = from.size[i], s.out[i] = two ? from.size[i] + 1 : from.size[i];
      s.kernel[i] = kernel_[i], s.stride[i] = s.dilation[i] = 1, s.pad[i] = two ? 1 : 0;
      call.tile[i] = tile_[i];
    }
    require(fits, "conv_transpose: out has shape " + shape_text(out) + ": pass the batch of x, " +
                      std::to_string(cout_) + " channels and twice its size");
    require(nthreads >= 1 && block >= 1, "conv_transpose: nthreads and block must be 1 or more");
    call.x = from.data, call.y = to.data, call.x_channel = 1;
    std::copy_n(from.stride, 4, call.x_stride);
    std::copy_n(to.stride, 4, call.y_stride);
    call.weights = weights_.at_least(0);
    call.epilogue = epilogue_of(to, scale, shift, residual, activation, alpha, beta, kConvTransposeWinograd);
    if (border) call.border = border_of(*border);
    call.block = std::max<int64_t>(1, std::min(block, s.out_pixels()));
    call.transposed = true, call.taps = taps_, call.share = share;
    call.stream =
        stream && can_stream(call.y, call.y_stride, cout_, FASTNETS_CALL(conv_lanes)(), call.epilogue);
    if (out.size() == 0 || x.size() == 0) return;
    if (x.size() * cout_ * 4 * s.taps() < kParallelProducts) nthreads = 1;
    retain(py::cast(this));
    submit(
        call, [](auto& c) { return Slots{slot(c.x), slot(c.y), slot(c.epilogue.residual)}; },
        FASTNETS_CALL_OF(call.element, conv_winograd_scratch), FASTNETS_CALL_OF(call.element, conv_winograd),
        nthreads);
  }

 private:
  const float* border_of(const py::array& border) const {
    require_array<float>(border, kConvTransposeWinograd, "border", 4);
    require_shape(border, {2 * kernel_[0] - 1, 2 * kernel_[1] - 1, 2 * kernel_[2] - 1, cout_},
                  kConvTransposeWinograd, "border", "3 an axis and cout");
    require((border.flags() & py::array::c_style) != 0,
            "conv_transpose: border must be contiguous: pass a copy");
    retain(border);
    return static_cast<const float*>(border.data());
  }

  int64_t cout_, cin_;
  Axes kernel_;
  int tile_[3];
  bool taps_;
  int64_t bytes_ = 0;
  Buffer weights_;
};

}  // namespace

void register_conv_transpose_winograd(py::module_& m) {
  py::class_<PackedTransposed>(m, "PackedTransposed")
      .def(py::init<const py::array&, const Axes&, bool, int>(), py::arg("weight"), py::arg("tile"),
           py::arg("taps"), py::arg("nthreads"))
      .def_property_readonly("bytes", &PackedTransposed::bytes)
      .def("run", &PackedTransposed::run, py::arg("x"), py::arg("out"), py::arg("scale"), py::arg("shift"),
           py::arg("border"), py::arg("residual"), py::arg("activation"), py::arg("alpha"), py::arg("beta"),
           py::arg("block"), py::arg("share"), py::arg("stream"), py::arg("nthreads"));
}

}  // namespace fastnets
