// 1x1 convolution to few output channels: the last layer of a segmentation network.
//
// The lanes of a vector are channels of a pixel. In a product by panels (conv_product.cpp) they are outputs,
// and with 2 of them 14 of 16 would be idle. Sums of Vec::width pixels are joined over their lanes at once.
// Everything is computed in floats.
//
// Made by the Winograd convolution before it, of results that stay in L2, networks took as long: 3D U-Net
// 0.97 to 1.0, U-Net and MeshNet 1.0 of the time (Zen 5).
#include "cpu/conv.h"
#include "cpu/lane_sums.h"
#include "cpu/pixel_rows.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

constexpr int64_t kPixels = Vec::width;  // whose sums are made together
constexpr int kOutputs = 4;              // made in one pass over the pixels

// `count` outputs of a row, of which [begin, end) have an input, and elements from one to the next.
template <class T>
struct Run {
  const T* x;  // of output `begin`
  T* y;
  const T* residual;  // or null
  int64_t count, begin, end;
  int64_t x_step, y_step, residual_step;
};

// Pixels are fetched so far in advance: 21 channels of 96x96x96 to 3 took 0.76 of the time (Emerald Rapids).
constexpr int64_t kPixelsAhead = 16;

// sum[o][i]: the products of pixel i, lane by lane, with the weights of output o; `depth` floats each.
template <int kCount, class T>
FASTNETS_INLINE void multiply(const Run<T>& run, int64_t cin, const float* weights, int64_t depth,
                              Vec (&sum)[kCount][kPixels]) {
  const T* pixel = run.x;
  for (int64_t i = run.begin; i < run.end; ++i, pixel += run.x_step) {
    Vec own[kCount];
#pragma GCC unroll 4
    for (int o = 0; o < kCount; ++o) own[o] = Vec::set(0.0F);
    each_vector(cin, [&](int64_t k, int lanes) FASTNETS_INLINE_LAMBDA {
      __builtin_prefetch(pixel + k + kPixelsAhead * run.x_step);
      const Vec v = load_lanes(pixel + k, lanes);
#pragma GCC unroll 4
      for (int o = 0; o < kCount; ++o) own[o] = fma(v, Vec::load(weights + o * depth + k), own[o]);
    });
#pragma GCC unroll 4
    for (int o = 0; o < kCount; ++o) sum[o][i] = own[o];
  }
  for (int64_t i = 0; i < kPixels; ++i) {
    if (i >= run.begin && i < run.end) continue;
    for (int o = 0; o < kCount; ++o) sum[o][i] = Vec::set(0.0F);
  }
}

// The outputs [first, first + kCount) of a run.
template <int kCount, class T>
__attribute__((noinline)) void run_outputs(const ConvCall& call, const Run<T>& run, int64_t depth,
                                           int64_t first) {
  const Epilogue& epilogue = call.epilogue;
  const Clamp clamp(epilogue);
  const float* const weights = static_cast<const float*>(call.weights) + first * depth;
  Vec sum[kCount][kPixels];
  multiply(run, call.shape.cin, weights, depth, sum);
  for (int o = 0; o < kCount; ++o) {
    const int64_t channel = first + o;
    const Vec scale = Vec::set(epilogue.scale == nullptr ? 1.0F : epilogue.scale[channel]);
    const Vec shift = Vec::set(epilogue.shift == nullptr ? 0.0F : epilogue.shift[channel]);
    Vec v = fma(lane_sums(sum[o]), scale, shift);
    if (run.residual != nullptr) {
      float added[kPixels] = {};
      for (int64_t i = 0; i < run.count; ++i) {
        added[i] = value_of(run.residual[i * run.residual_step + channel]);
      }
      v = v + Vec::load(added);
    }
    T made[kPixels];
    clamp(v).store(made);
    for (int64_t i = 0; i < run.count; ++i) run.y[i * run.y_step + channel] = made[i];
  }
}

template <class T>
void run_all_outputs(const ConvCall& call, const Run<T>& run, int64_t depth) {
  const int64_t cout = call.shape.cout;
  int64_t first = 0;
  for (; first + kOutputs <= cout; first += kOutputs) run_outputs<kOutputs>(call, run, depth, first);
  if (cout - first == 3) run_outputs<3>(call, run, depth, first);
  if (cout - first == 2) run_outputs<2>(call, run, depth, first);
  if (cout - first == 1) run_outputs<1>(call, run, depth, first);
  if (Clamp(call.epilogue).more) activate_pixels(run.y, run.count, run.y_step, cout, call.epilogue);
}

// Row `row` of the outputs, counted over all images.
template <class T>
void run_row(const ConvCall& call, int64_t row, int64_t depth) {
  const ConvShape& s = call.shape;
  const int64_t plane = row / s.out[1], n = plane / s.out[0], oz = plane % s.out[0], oy = row % s.out[1];
  const int64_t z = oz * s.stride[0] - s.pad[0], y = oy * s.stride[1] - s.pad[1];
  const bool inside = z >= 0 && z < s.in[0] && y >= 0 && y < s.in[1];
  const auto offset = [&](const int64_t stride[4], int64_t x) {
    return n * stride[0] + oz * stride[1] + oy * stride[2] + x * stride[3];
  };
  const int64_t* const step = call.x_stride;
  const T* const line = static_cast<const T*>(call.x) + n * step[0] + z * step[1] + y * step[2];
  const T* const residual = static_cast<const T*>(call.epilogue.residual);
  for (int64_t x = 0; x < s.out[2]; x += kPixels) {
    const int64_t count = least(kPixels, s.out[2] - x), first = x * s.stride[2] - s.pad[2];
    int64_t begin = 0, end = inside ? count : 0;
    while (begin < end && first + begin * s.stride[2] < 0) ++begin;
    while (begin < end && first + (end - 1) * s.stride[2] >= s.in[2]) --end;
    const Run<T> run{begin < end ? line + (first + begin * s.stride[2]) * step[3] : nullptr,
                     static_cast<T*>(call.y) + offset(call.y_stride, x),
                     residual == nullptr ? nullptr : residual + offset(call.epilogue.residual_stride, x),
                     count,
                     begin,
                     end,
                     s.stride[2] * step[3],
                     call.y_stride[3],
                     call.epilogue.residual_stride[3]};
    run_all_outputs(call, run, depth);
  }
}

}  // namespace
}  // namespace FASTNETS_LEVEL

int64_t FASTNETS_ENTRY(conv_narrow_scratch)(const ConvCall&, int) { return 0; }

void FASTNETS_ENTRY(conv_narrow)(const ConvCall& call, void*, ThreadContext& context) {
  using namespace FASTNETS_LEVEL;
  const ConvShape& s = call.shape;
  const int64_t depth = (s.cin + Vec::width - 1) / Vec::width * Vec::width;
  const int64_t rows = s.batch * s.out[0] * s.out[1];
  const int64_t each = s.out[2] >= call.block ? 1 : call.block / s.out[2];  // rows of an item
  with_element(call.element, [&](auto zero) {
    for (int64_t item; next_item(context, (rows + each - 1) / each, item);) {
      const int64_t end = least(rows, (item + 1) * each);
      for (int64_t row = item * each; row < end; ++row) run_row<decltype(zero)>(call, row, depth);
    }
  });
  finish(context);
}

}  // namespace fastnets
