// fastnets._C.PackedConv: weights packed for one kernel, run on any number of inputs.
#include "cpu/conv.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <optional>

#include "common/scratch.h"
#include "ops/arrays.h"
#include "ops/packing.h"

namespace fastnets {
namespace {

namespace py = pybind11;

using Axes = std::array<int64_t, 3>;

const char* const kConv = "conv";

// The order of the axes that a kernel sees: those whose kernel is 1 come first, so that 3x1 becomes 1x3 and
// (3, 3, 1) becomes (1, 3, 3). Weights need no change: an axis of size 1 has no place in memory.
Axes kernel_order(const Axes& kernel) {
  Axes order{0, 1, 2};
  std::stable_partition(order.begin(), order.end(), [&](int64_t axis) { return kernel[axis] == 1; });
  return order;
}

void set_strides(const int64_t from[4], const Axes& order, int64_t to[4]) {
  to[0] = from[0];
  for (int i = 0; i < 3; ++i) to[i + 1] = from[1 + order[i]];
}

class PackedConv {
 public:
  PackedConv(const py::array& weight, int64_t groups, const std::string& algorithm, const Axes& tile,
             bool taps, int nthreads)
      : algorithm_(algorithm), groups_(groups), taps_(taps) {
    element_ = require_elements(weight, kConv, "weight", 5);
    require((weight.flags() & py::array::c_style) != 0, "conv: weight must be contiguous: pass a copy");
    require(groups >= 1 && weight.shape(0) % groups == 0, "conv: groups is " + std::to_string(groups) +
                                                              " and weight has shape " + shape_text(weight) +
                                                              ": pass a divisor of its first dimension");
    cout_ = weight.shape(0), cin_ = weight.shape(1) * groups;
    for (int i = 0; i < 3; ++i) kernel_[i] = weight.shape(2 + i);
    ConvWeights w{weight.data(), element_, cout_, weight.shape(1), groups, {}};
    order_ = kernel_order(kernel_);
    for (int i = 0; i < 3; ++i) {
      w.kernel[i] = kernel_[order_[i]];
      tile_[i] = static_cast<int>(tile[order_[i]]);
    }
    const int lanes = FASTNETS_CALL(conv_lanes)();
    if (algorithm == "product" || algorithm == "strassen") {
      require(algorithm == "product" || (groups == 1 && element_ == Element::float32),
              "conv: strassen needs float32 and one group");
      const ProductPacking packing = product_packing(element_);
      pack(packed_product_elements(w, packing) * element_bytes(element_), nthreads,
           [&](void* to, ThreadContext& context) { pack_product(w, packing, to, context); });
    } else if (algorithm == "direct") {
      require(element_ == Element::bfloat16 && FASTNETS_CALL(conv_direct) != nullptr,
              "conv: direct needs bfloat16 and a level with tiles");
      const ProductPacking packing = product_packing(element_);
      pack(packed_direct_elements(w, packing) * element_bytes(element_), nthreads,
           [&](void* to, ThreadContext& context) { pack_direct(w, packing, to, context); });
    } else if (algorithm == "planar") {
      require(groups == 1, "conv: planar needs one group");
      pack_planar(w, lanes, nthreads);
    } else if (algorithm == "narrow") {
      require(groups == 1 && kernel_ == Axes{1, 1, 1}, "conv: narrow needs one group and a kernel of 1");
      pack_narrow(w, lanes);
    } else if (algorithm == "winograd") {
      require_tile(w, lanes);
      const std::vector<float> floats = floats_of(w);  // its transforms would lose digits in bfloat16
      w.values = floats.data(), w.element = Element::float32;
      pack(packed_winograd_elements(w, tile_, taps, lanes) * kFloat, nthreads,
           [&](void* to, ThreadContext& context) {
             pack_winograd(w, tile_, taps, lanes, static_cast<float*>(to), context);
           });
    } else if (algorithm == "depthwise") {
      require(w.cin == 1, "conv: depthwise needs one input channel a group");
      pack_groups(w, lanes, nthreads);
    } else {
      require(algorithm == "grouped",
              "conv: algorithm is " + algorithm +
                  ": pass product, direct, strassen, winograd, planar, narrow, grouped or depthwise");
      require(
          lanes % w.cin == 0 && cout_ == cin_,
          "conv: grouped needs groups whose outputs equal their inputs and divide " + std::to_string(lanes));
      pack_groups(w, lanes, nthreads);
    }
  }

  int64_t bytes() const { return bytes_; }

  // Into `out`, the maxima of its windows of 2 into `maxima`, or both; `size` is that of all results.
  void run(const py::array& x, const std::optional<py::array>& out, const std::optional<py::array>& maxima,
           const Axes& size, const Axes& stride_of, const Axes& pad, const Axes& dilation,
           const std::optional<py::array>& scale, const std::optional<py::array>& shift,
           const std::optional<py::array>& residual, int activation, float alpha, float beta,
           const std::optional<py::array>& moments, int64_t block, bool share, bool stream, int nthreads) {
    require_elements(x, kConv, "x", 5, element_);
    ConstAnyPixels from{};
    if (algorithm_ == "planar") {
      set_sizes(from, x, kConv, "x");
    } else {
      set_geometry(from, x, kConv, "x");
    }
    require(out || maxima, "conv: out and maxima are both None: pass one of them");
    const AnyPixels most = maxima ? any_output(*maxima, kConv, "maxima", element_) : AnyPixels{};
    const AnyPixels to = out ? any_output(*out, kConv, "out", element_) : nowhere(most, size);
    require(nthreads >= 1 && block >= 1, "conv: nthreads and block must be 1 or more");
    ConvCall call{};
    ConvShape& s = call.shape;
    s.batch = x.shape(0), s.cin = cin_, s.cout = cout_, s.groups = groups_;
    require(x.shape(1) == cin_,
            "conv: x has shape " + shape_text(x) + ": pass " + std::to_string(cin_) + " channels");
    require(
        to.batch == s.batch && to.channels == cout_ && std::equal(size.begin(), size.end(), to.size),
        "conv: " + (out ? "out has shape " + shape_text(*out) : "maxima has shape " + shape_text(*maxima)) +
            ": pass the batch of x, " + std::to_string(cout_) + " channels and the size given");
    for (int i = 0; i < 3; ++i) {
      const int64_t axis = order_[i];
      s.in[i] = x.shape(2 + axis), s.out[i] = size[axis];
      s.kernel[i] = kernel_[axis], s.stride[i] = stride_of[axis];
      s.pad[i] = pad[axis], s.dilation[i] = dilation[axis];
      require(s.stride[i] >= 1 && s.dilation[i] >= 1 && s.pad[i] >= 0,
              "conv: strides and dilations must be 1 or more, and padding 0 or more");
      require(algorithm_ != "winograd" ||
                  (tile_[i] == 3 ? s.stride[i] == 2 && s.dilation[i] == 1 : s.stride[i] == 1),
              "conv: winograd needs stride 1, or tiles of 3 along axes of stride 2 without dilation");
      call.tile[i] = tile_[i];
    }
    require(
        algorithm_ != "planar" || s.dilation[2] == 1 || FASTNETS_CALL(conv_steps)(element_) == 1,
        "conv: planar takes taps in pairs here, which needs dilation 1 along the last axis of the kernel");
    call.element = element_;
    call.x = from.data, call.y = to.data;
    call.x_channel = algorithm_ == "planar" ? element_stride(x, 1) : 1;
    set_strides(from.stride, order_, call.x_stride);
    set_strides(to.stride, order_, call.y_stride);
    if (maxima) {
      require_maxima(*maxima, to, moments.has_value(), activation_of(activation, kConv));
      require(std::all_of(dilation.begin(), dilation.end(), [](int64_t d) { return d == 1; }),
              "conv: maxima need dilation 1, as their windows are of results that lie together");
      call.maxima = most.data;
      set_strides(most.stride, order_, call.maxima_stride);
    }
    call.weights = weights_.at_least(0);
    const Epilogue given = epilogue_of(to, scale, shift, residual, activation, alpha, beta, kConv);
    call.epilogue = given;
    set_strides(given.residual_stride, order_, call.epilogue.residual_stride);
    if (moments) call.epilogue.moments = moments_of(*moments, to, call.epilogue.activation);
    call.block = std::max<int64_t>(1, std::min(block, s.out_pixels()));
    call.taps = taps_, call.share = share, call.strassen = algorithm_ == "strassen";
    const int64_t run = algorithm_ == "depthwise" ? cout_ : cout_ / groups_;
    // Over its residual, whose lines the caches have then: streaming took 1.0 to 1.03 of the time (U-Nets,
    // Zen 5).
    const bool over = call.y != nullptr && call.epilogue.residual == call.y;
    const bool large = s.out_pixels() * cout_ * element_bytes(element_) > kFetchedBytes;
    call.stream =
        stream && !over && can_stream(call.y, call.y_stride, run, FASTNETS_CALL(conv_lanes)(), call.epilogue);
    call.fetch = large && !call.stream, call.fetch_residual = large && residual && !over;
    if (maxima) {
      const int64_t pixels = most.batch * most.size[0] * most.size[1] * most.size[2];
      call.stream_maxima =
          stream && pixels * cout_ * element_bytes(element_) > kStreamedMaxima &&
          can_stream(call.maxima, call.maxima_stride, run, FASTNETS_CALL(conv_lanes)(), call.epilogue);
    }
    if (s.out_pixels() * cout_ == 0) return;
    if (s.out_pixels() * cout_ * (cin_ / groups_) * s.taps() < kParallelProducts) nthreads = 1;
    retain(py::cast(this));
    submit(
        call, [](auto& c) { return Slots{slot(c.x), slot(c.y), slot(c.maxima), slot(c.epilogue.residual)}; },
        scratch_function(s), kernel_function(s), nthreads);
  }

 private:
  // Results of which only the maxima go anywhere.
  static AnyPixels nowhere(const AnyPixels& maxima, const Axes& size) {
    AnyPixels all{};
    all.element = maxima.element, all.batch = maxima.batch, all.channels = maxima.channels;
    std::copy(size.begin(), size.end(), all.size);
    return all;
  }

  void require_maxima(const py::array& maxima, const AnyPixels& y, bool moments,
                      Activation activation) const {
    require(algorithm_ == "winograd" && !moments && activation <= Activation::clamp,
            "conv: only winograd makes maxima, without moments and with no activation or one that clamps");
    bool fits = maxima.shape(0) == y.batch && maxima.shape(1) == y.channels;
    for (int i = 0; i < 3; ++i) {
      require(tile_[i] == 1 || tile_[i] % 2 == 0, "conv: maxima need tiles of 2, 4 or 6");
      fits = fits && maxima.shape(2 + order_[i]) == y.size[order_[i]] / (tile_[i] == 1 ? 1 : 2);
    }
    require(fits, "conv: maxima has shape " + shape_text(maxima) +
                      ": pass the batch and channels of the result and half its size, rounded down");
  }

  // Where mean and variance go, (batch, cout, 2).
  double* moments_of(const py::array& moments, const AnyPixels& y, Activation activation) const {
    require(algorithm_ == "winograd" && element_ == Element::float32 && activation <= Activation::clamp,
            "conv: only winograd makes moments, of float32 results with no activation or one that clamps");
    require_array<double>(moments, kConv, "moments", 3);
    require_shape(moments, {y.batch, y.channels, 2}, kConv, "moments", "(batch, cout, 2)");
    require((moments.flags() & py::array::c_style) != 0 && moments.writeable(),
            "conv: moments must be contiguous and writeable: pass a new array");
    retain(moments);
    return static_cast<double*>(const_cast<void*>(moments.data()));
  }

  static constexpr int64_t kFetchedBytes = 4 << 20;  // what the cores' own caches may still hold
  // A store of maxima to memory reads the line first: U-Nets took 1.02 of the time, VGG 1.01 (Zen 5).
  static constexpr int64_t kStreamedMaxima = 1 << 20;
  static constexpr auto kFloat = static_cast<int64_t>(sizeof(float));

  static std::vector<float> floats_of(const ConvWeights& w) {
    std::vector<float> floats(static_cast<size_t>(w.cout * w.cin * w.kernel[0] * w.kernel[1] * w.kernel[2]));
    with_element(w.element, [&](auto zero) {
      const auto* values = static_cast<const decltype(zero)*>(w.values);
      for (size_t i = 0; i < floats.size(); ++i) floats[i] = value_of(values[i]);
    });
    return floats;
  }

  // [cout][cin, padded with zeros to whole vectors], of floats.
  void pack_narrow(const ConvWeights& w, int lanes) {
    const std::vector<float> floats = floats_of(w);
    const int64_t depth = (w.cin + lanes - 1) / lanes * lanes;
    pack(w.cout * depth * kFloat, 1, [&](void* to, ThreadContext&) {
      auto* rows = static_cast<float*>(to);
      std::fill(rows, rows + w.cout * depth, 0.0F);
      for (int64_t o = 0; o < w.cout; ++o) {
        std::copy(floats.data() + o * w.cin, floats.data() + (o + 1) * w.cin, rows + o * depth);
      }
    });
  }

  // Channels count as a further axis of the kernel. Of floats, or of pairs of taps along x.
  void pack_planar(const ConvWeights& given, int lanes, int nthreads) {
    const int steps = FASTNETS_CALL(conv_steps)(element_);
    ConvWeights w = given;
    w.kernel[0] *= w.cin, w.cin = 1;
    std::vector<float> floats;
    std::vector<Bf16> pairs;
    if (steps == 1) {
      floats = floats_of(given);
      w.values = floats.data(), w.element = Element::float32;
    } else {
      const int64_t taps = w.kernel[2], whole = (taps + steps - 1) / steps * steps;
      const int64_t lines = cout_ * w.kernel[0] * w.kernel[1];
      pairs.resize(static_cast<size_t>(lines * whole), Bf16{});
      const auto* values = static_cast<const Bf16*>(given.values);
      for (int64_t i = 0; i < lines; ++i) std::copy_n(values + i * taps, taps, pairs.data() + i * whole);
      w.values = pairs.data(), w.kernel[2] = whole;
    }
    const ProductPacking packing{lanes, steps, steps};
    pack(packed_product_elements(w, packing) * element_bytes(w.element), nthreads,
         [&](void* to, ThreadContext& context) { pack_product(w, packing, to, context); });
  }

  void pack_groups(const ConvWeights& w, int lanes, int nthreads) {
    pack(packed_grouped_elements(w, lanes) * kFloat, nthreads,
         [&](void* to, ThreadContext& context) { pack_grouped(w, lanes, static_cast<float*>(to), context); });
  }

  template <class Pack>
  void pack(int64_t bytes, int nthreads, const Pack& body) {
    bytes_ = bytes;
    void* const memory = weights_.at_least(std::max(bytes_, kAlignment));
    const py::gil_scoped_release release;
    run_team(nthreads, [&](ThreadContext& context) { body(memory, context); });
  }

  // The tiles of cpu/winograd_transforms.h.
  void require_tile(const ConvWeights& w, int lanes) const {
    const int64_t taps = w.kernel[2];
    for (int i = 0; i < 3; ++i) {
      require(w.kernel[i] == (tile_[i] == 1 ? 1 : taps),
              "conv: winograd needs a tile of 1 along axes with kernel 1, and one kernel along the others");
    }
    const std::array<int, 3> of3[] = {{1, 1, 2}, {1, 1, 4}, {1, 1, 6}, {1, 2, 2}, {1, 3, 3}, {1, 4, 4},
                                      {1, 6, 6}, {2, 2, 2}, {2, 4, 4}, {4, 4, 4}, {6, 4, 4}};
    const std::array<int, 3> of5[] = {{1, 1, 2}, {1, 1, 4}, {1, 2, 2}, {1, 4, 4}, {2, 2, 2}};
    const std::array<int, 3> of7[] = {{1, 1, 2}, {1, 2, 2}};
    const std::array<int, 3> mine{tile_[0], tile_[1], tile_[2]};
    const auto among = [&](const auto& made) {
      return std::find(std::begin(made), std::end(made), mine) != std::end(made);
    };
    require((taps == 3 && among(of3)) || (taps == 5 && among(of5)) || (taps == 7 && among(of7)),
            "conv: there is no winograd kernel for this kernel and mixture of tiles");
    require(!taps_ || (taps == 3 && tile_[2] != 3 && cout_ / groups_ % (int64_t{kPanelVectors} * lanes) == 0),
            "conv: winograd keeps taps only of kernel 3 with stride 1, for whole panels of output channels");
  }

  using ScratchFunction = int64_t (*)(const ConvCall&, int);
  using KernelFunction = void (*)(const ConvCall&, void*, ThreadContext&);

  // Whether conv_groups runs a product: of groups whose taps are whole factors, in as many items as threads
  // count.
  bool without_gathering(const ConvShape& s) const {
    const bool whole = FASTNETS_CALL(conv_depth)(element_) == FASTNETS_CALL(conv_steps)(element_) &&
                       cin_ / groups_ % FASTNETS_CALL(conv_steps)(element_) == 0;
    return algorithm_ == "product" && groups_ > 1 && s.taps() > 1 && whole &&
           s.batch * s.out[0] * s.out[1] * groups_ <= kMostRows;
  }

  ScratchFunction scratch_function(const ConvShape& s) const {
    return without_gathering(s)        ? FASTNETS_CALL_OF(element_, conv_groups_scratch)
           : algorithm_ == "product"   ? FASTNETS_CALL_OF(element_, conv_product_scratch)
           : algorithm_ == "strassen"  ? FASTNETS_CALL_OF(element_, conv_product_scratch)
           : algorithm_ == "direct"    ? FASTNETS_CALL(conv_direct_scratch)
           : algorithm_ == "winograd"  ? FASTNETS_CALL_OF(element_, conv_winograd_scratch)
           : algorithm_ == "planar"    ? FASTNETS_CALL_OF(element_, conv_planar_scratch)
           : algorithm_ == "narrow"    ? FASTNETS_CALL(conv_narrow_scratch)
           : algorithm_ == "depthwise" ? FASTNETS_CALL_OF(element_, conv_depthwise_scratch)
                                       : FASTNETS_CALL(conv_grouped_scratch);
  }

  KernelFunction kernel_function(const ConvShape& s) const {
    return without_gathering(s)        ? FASTNETS_CALL_OF(element_, conv_groups)
           : algorithm_ == "product"   ? FASTNETS_CALL_OF(element_, conv_product)
           : algorithm_ == "strassen"  ? FASTNETS_CALL_OF(element_, conv_product)
           : algorithm_ == "direct"    ? FASTNETS_CALL(conv_direct)
           : algorithm_ == "winograd"  ? FASTNETS_CALL_OF(element_, conv_winograd)
           : algorithm_ == "planar"    ? FASTNETS_CALL_OF(element_, conv_planar)
           : algorithm_ == "narrow"    ? FASTNETS_CALL(conv_narrow)
           : algorithm_ == "depthwise" ? FASTNETS_CALL_OF(element_, conv_depthwise)
                                       : FASTNETS_CALL(conv_grouped);
  }

  std::string algorithm_;
  Element element_;
  int64_t cout_, cin_, groups_;
  Axes kernel_, order_;
  int tile_[3];
  bool taps_;
  int64_t bytes_ = 0;
  Buffer weights_;
};

}  // namespace

void register_conv(py::module_& m) {
  py::class_<PackedConv>(m, "PackedConv")
      .def(py::init<const py::array&, int64_t, const std::string&, const Axes&, bool, int>(),
           py::arg("weight"), py::arg("groups"), py::arg("algorithm"), py::arg("tile"), py::arg("taps"),
           py::arg("nthreads"))
      .def_property_readonly("bytes", &PackedConv::bytes)
      .def("run", &PackedConv::run, py::arg("x"), py::arg("out"), py::arg("maxima"), py::arg("size"),
           py::arg("stride"), py::arg("pad"), py::arg("dilation"), py::arg("scale"), py::arg("shift"),
           py::arg("residual"), py::arg("activation"), py::arg("alpha"), py::arg("beta"), py::arg("moments"),
           py::arg("block"), py::arg("share"), py::arg("stream"), py::arg("nthreads"));
  m.def("conv_lanes", [] { return FASTNETS_CALL(conv_lanes)(); });
  m.def("has_tiles", [] { return FASTNETS_CALL(conv_direct) != nullptr; });
  m.def(
      "conv_rate",
      [](bool bf16) { return FASTNETS_CALL(conv_rate)(bf16 ? Element::bfloat16 : Element::float32); },
      py::arg("bf16"));
  m.def(
      "conv_steps",
      [](bool bf16) { return FASTNETS_CALL(conv_steps)(bf16 ? Element::bfloat16 : Element::float32); },
      py::arg("bf16"));
}

}  // namespace fastnets
