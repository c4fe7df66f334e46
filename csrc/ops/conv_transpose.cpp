// fastnets._C.PackedProduct: weights packed once, run as a transposed convolution or a linear layer.
#include "cpu/conv_transpose.h"

#include <array>

#include "common/panels.h"
#include "common/scratch.h"
#include "ops/arrays.h"
#include "ops/packing.h"

namespace fastnets {
namespace {

namespace py = pybind11;

using Axes = std::array<int64_t, 3>;

const char* const kConvTranspose = "conv_transpose";

class PackedProduct {
 public:
  // weight: (groups, cin, cout, taps), at any strides.
  explicit PackedProduct(const py::array& weight) : shape_{} {
    shape_.element = require_elements(weight, kConvTranspose, "weight", 4);
    shape_.data = weight.data();
    shape_.groups = weight.shape(0), shape_.cin = weight.shape(1);
    shape_.cout = weight.shape(2), shape_.taps = weight.shape(3);
    for (int i = 0; i < 4; ++i) shape_.stride[i] = element_stride(weight, i);
    require(weight.size() > 0, std::string(kConvTranspose) + ": weight has shape " + shape_text(weight) +
                                   ": pass no empty axis");
    ProductPacking packing = product_packing(shape_.element);
    packing.lanes = FASTNETS_CALL(conv_transpose_lanes)();
    bytes_ = panel_elements(shape_, packing) * element_bytes(shape_.element);
    void* const packed = weights_.at_least(bytes_);
    {
      const py::gil_scoped_release release;
      pack_panels(shape_, packing, packed);
    }
    shape_.data = packed;  // the caller's array may go
  }

  int64_t bytes() const { return bytes_; }

  void run(const py::array& x, const py::array& out, const Axes& kernel, const Axes& stride_of,
           const Axes& pad, const Axes& dilation, const std::optional<py::array>& scale,
           const std::optional<py::array>& shift, const std::optional<py::array>& residual, int activation,
           float alpha, float beta, bool stream, int nthreads) const {
    ConvTransposeCall call{};
    call.x = any_input(x, kConvTranspose, "x", shape_.element);
    call.y = any_output(out, kConvTranspose, "out", shape_.element);
    require(call.x.batch == call.y.batch,
            std::string(kConvTranspose) + ": out and x differ in their batch: pass the same");
    require_channels(call.x.channels, shape_.groups * shape_.cin, "x");
    require_channels(call.y.channels, shape_.groups * shape_.cout, "out");
    int64_t taps = 1;
    for (int i = 0; i < 3; ++i) {
      call.kernel[i] = kernel[i], call.stride[i] = stride_of[i], call.pad[i] = pad[i],
      call.dilation[i] = dilation[i];
      require(kernel[i] >= 1 && stride_of[i] >= 1 && dilation[i] >= 1 && pad[i] >= 0,
              std::string(kConvTranspose) +
                  ": kernel, stride and dilation must be 1 or more, and padding 0 or more");
      taps *= kernel[i];
    }
    require(taps == shape_.taps, std::string(kConvTranspose) + ": kernel has " + std::to_string(taps) +
                                     " taps and the packed weights " + std::to_string(shape_.taps));
    require(nthreads >= 1,
            std::string(kConvTranspose) + ": nthreads is " + std::to_string(nthreads) + ": pass 1 or more");
    call.groups = shape_.groups;
    call.weights = shape_.data;
    call.epilogue = epilogue_of(call.y, scale, shift, residual, activation, alpha, beta, kConvTranspose);
    call.stream = stream && can_stream(call.y.data, call.y.stride, shape_.cout,
                                       FASTNETS_CALL(conv_transpose_lanes)(), call.epilogue);
    if (out.size() == 0) return;
    if (x.size() * shape_.cout * taps < kParallelProducts) nthreads = 1;
    retain(py::cast(this));
    submit(
        call, [](auto& c) { return Slots{slot(c.x.data), slot(c.y.data), slot(c.epilogue.residual)}; },
        FASTNETS_CALL_OF(shape_.element, conv_transpose_scratch),
        FASTNETS_CALL_OF(shape_.element, conv_transpose), nthreads);
  }

 private:
  static void require_channels(int64_t channels, int64_t expected, const std::string& name) {
    require(channels == expected, std::string(kConvTranspose) + ": " + name + " has " +
                                      std::to_string(channels) + " channels: pass " +
                                      std::to_string(expected));
  }

  ProductWeights shape_;
  int64_t bytes_ = 0;
  Buffer weights_;
};

}  // namespace

void register_conv_transpose(py::module_& m) {
  py::class_<PackedProduct>(m, "PackedProduct")
      .def(py::init<const py::array&>(), py::arg("weight"))
      .def_property_readonly("bytes", &PackedProduct::bytes)
      .def("run", &PackedProduct::run, py::arg("x"), py::arg("out"), py::arg("kernel"), py::arg("stride"),
           py::arg("pad"), py::arg("dilation"), py::arg("scale"), py::arg("shift"), py::arg("residual"),
           py::arg("activation"), py::arg("alpha"), py::arg("beta"), py::arg("stream"), py::arg("nthreads"));
}

}  // namespace fastnets
