// Grouped convolution with as many outputs as inputs a group, a divisor of the vector width: 4, 8, 16, or 1.
//
// A vector holds whole groups. Input channel c of each group is brought to the lanes of its outputs by one
// permutation in registers, so no multiplication is wasted; as a product, groups of 4 would use 4 of 16
// lanes.
#include "common/scratch.h"
#include "cpu/activation.h"
#include "cpu/conv.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

// Outputs along x that share the weights in registers: kSegment sums and as many inputs.
constexpr int kSegment = Vec::width == 16 ? 8 : 4;

struct Plan {
  const ConvCall& call;
  const ConvShape& s;
  int64_t size;      // channels of a group, in and out
  int64_t segments;  // of an output row
  int64_t rows;      // output rows of all images

  explicit Plan(const ConvCall& c) : call(c), s(c.shape) {
    size = s.cin / s.groups;
    segments = (s.out[2] + kSegment - 1) / kSegment;
    rows = s.batch * s.out[0] * s.out[1];
  }
  int64_t page_elements() const { return s.cin; }
  int64_t private_bytes() const {
    return slice_bytes<float>(page_elements()) + slice_bytes<const void*>(s.taps() * kSegment) +
           slice_bytes<int32_t>(size * Vec::width);
  }
};

// Memory of a thread.
template <class T>
struct Own {
  T* zeros;
  const T** pixels;  // [taps][kSegment]
  int32_t* order;    // [size][Vec::width]: the lanes that bring channel c of each group to its outputs
};

// A segment of an output row: the pixels of x under each tap, those past the end of the row included as
// zeros.
template <class T>
void find_pixels(const Plan& plan, const Own<T>& own, int64_t image, int64_t oz, int64_t oy, int64_t ox) {
  const ConvShape& s = plan.s;
  const int64_t* stride = plan.call.x_stride;
  const T** pixel = own.pixels;
  for (int64_t i = 0; i < s.kernel[0]; ++i) {
    const int64_t z = oz * s.stride[0] - s.pad[0] + i * s.dilation[0];
    for (int64_t j = 0; j < s.kernel[1]; ++j) {
      const int64_t y = oy * s.stride[1] - s.pad[1] + j * s.dilation[1];
      const bool inside = z >= 0 && z < s.in[0] && y >= 0 && y < s.in[1];
      const T* line = static_cast<const T*>(plan.call.x) + image * stride[0] + z * stride[1] + y * stride[2];
      for (int64_t k = 0; k < s.kernel[2]; ++k) {
        for (int64_t n = 0; n < kSegment; ++n) {
          const int64_t x = (ox + n) * s.stride[2] - s.pad[2] + k * s.dilation[2];
          *pixel++ = inside && x >= 0 && x < s.in[2] ? line + x * stride[3] : own.zeros;
        }
      }
    }
  }
}

// kSegment outputs of the vector of channels from `channel` on.
template <class T>
FASTNETS_INLINE void sum_taps(const Plan& plan, const Own<T>& own, int64_t channel, int lanes,
                              Vec (&sum)[kSegment]) {
#pragma GCC unroll 8
  for (int n = 0; n < kSegment; ++n) sum[n] = Vec::set(0.0F);
  const float* weights = static_cast<const float*>(plan.call.weights) + channel * plan.s.taps() * plan.size;
  for (int64_t tap = 0; tap < plan.s.taps(); ++tap) {
    const T* const* pixel = own.pixels + tap * kSegment;
    Vec in[kSegment];
#pragma GCC unroll 8
    for (int n = 0; n < kSegment; ++n) in[n] = Vec::load(pixel[n] + channel, lanes);
    for (int64_t c = 0; c < plan.size; ++c, weights += Vec::width) {
      const Vec weight = Vec::load(weights);
      const int32_t* order = own.order + c * Vec::width;
#pragma GCC unroll 8
      for (int n = 0; n < kSegment; ++n) {
        sum[n] = fma(plan.size > 1 ? permute(in[n], order) : in[n], weight, sum[n]);
      }
    }
  }
}

template <class T>
void run_segment(const Plan& plan, const Own<T>& own, int64_t row, int64_t ox) {
  const ConvCall& call = plan.call;
  const Epilogue& epilogue = call.epilogue;
  const int64_t plane = row / plan.s.out[1], oy = row % plan.s.out[1];
  const int64_t image = plane / plan.s.out[0], oz = plane % plan.s.out[0];
  find_pixels(plan, own, image, oz, oy, ox);
  const int64_t* to = call.y_stride;
  const int64_t* from = epilogue.residual_stride;
  T* y = static_cast<T*>(call.y) + image * to[0] + oz * to[1] + oy * to[2] + ox * to[3];
  const T* residual = static_cast<const T*>(epilogue.residual);
  if (residual != nullptr) residual += image * from[0] + oz * from[1] + oy * from[2] + ox * from[3];
  const int64_t count = least(kSegment, plan.s.out[2] - ox);
  const Clamp clamp(epilogue);
  for (int64_t channel = 0; channel < plan.s.cout; channel += Vec::width) {
    const int lanes = static_cast<int>(least(Vec::width, plan.s.cout - channel));
    Vec sum[kSegment];
    sum_taps(plan, own, channel, lanes, sum);
    const ChannelTerms terms(epilogue, channel, lanes);
#pragma GCC unroll 8
    for (int n = 0; n < kSegment; ++n) {
      if (n >= count) break;
      Vec v = terms(sum[n]);
      if (residual != nullptr) v = v + Vec::load(residual + n * from[3] + channel, lanes);
      clamp(v).store(y + n * to[3] + channel, lanes);
    }
  }
  for (int64_t n = 0; clamp.more && n < count; ++n) activate_row(y + n * to[3], plan.s.cout, epilogue);
}

template <class T>
void run_items(const ConvCall& call, void* scratch, ThreadContext& context) {
  const Plan plan(call);
  Arena arena(scratch, context.thread * plan.private_bytes());
  Own<T> own{};
  own.zeros = arena.take<T>(plan.page_elements());
  own.pixels = arena.take<const T*>(plan.s.taps() * kSegment);
  own.order = arena.take<int32_t>(plan.size * Vec::width);
  for (int64_t i = 0; i < plan.page_elements(); ++i) own.zeros[i] = T{};
  for (int64_t i = 0; i < plan.size * Vec::width; ++i) {
    const int64_t c = i / Vec::width, lane = i % Vec::width;
    own.order[i] = static_cast<int32_t>(lane / plan.size * plan.size + c);
  }
  for (int64_t row; next_item(context, plan.rows, row);) {
    for (int64_t x = 0; x < plan.s.out[2]; x += kSegment) run_segment(plan, own, row, x);
  }
}

}  // namespace
}  // namespace FASTNETS_LEVEL

int64_t FASTNETS_ENTRY(conv_grouped_scratch)(const ConvCall& call, int threads) {
  return threads * FASTNETS_LEVEL::Plan(call).private_bytes();
}

void FASTNETS_ENTRY(conv_grouped)(const ConvCall& call, void* scratch, ThreadContext& context) {
  using namespace FASTNETS_LEVEL;
  with_element(call.element, [&](auto zero) { run_items<decltype(zero)>(call, scratch, context); });
  finish(context);
}

}  // namespace fastnets
