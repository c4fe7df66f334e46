#include "cpu/pointwise.h"

#include <algorithm>

#include "cpu/pixel_rows.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

constexpr int64_t kBlock = 1 << 13;  // elements an item: 32 KiB, half of L1 where x and y differ

// Whether the pixels of an image follow each other at one distance, so that they are one row.
FASTNETS_INLINE bool is_one_row(const int64_t size[3], const int64_t stride[4]) {
  const bool planes = size[1] == 1 || stride[2] == size[2] * stride[3];
  return planes && (size[0] == 1 || stride[1] == size[1] * size[2] * stride[3]);
}

template <class X, class Y>
FASTNETS_INLINE void run(const X* x, const Y* residual, Y* y, int64_t n, const Epilogue& e) {
  const Clamp clamp(e);
  for (int64_t i = 0; i < n; i += Vec::width) {
    const int lanes = lanes_at(i, n);
    Vec v = Vec::load(x + i, lanes);
    if (residual != nullptr) v = v + Vec::load(residual + i, lanes);
    clamp(v).store(y + i, lanes);
  }
  if (clamp.more) activate_row(y, n, e);
}

template <class X, class Y>
FASTNETS_INLINE void run_scaled(const PointwiseCall& call, const X* x, const Y* residual, Y* y,
                                int64_t pixels) {
  const Epilogue& e = call.epilogue;
  const Clamp clamp(e);
  const int64_t channels = call.x.channels;
  for (int64_t c = 0; c < channels; c += Vec::width) {
    const int lanes = lanes_at(c, channels);
    const ChannelTerms terms(e, c, lanes);
    for (int64_t i = 0; i < pixels; ++i) {
      Vec v = terms(Vec::load(x + i * call.x.stride[3] + c, lanes));
      if (residual != nullptr) v = v + Vec::load(residual + i * e.residual_stride[3] + c, lanes);
      clamp(v).store(y + i * call.y.stride[3] + c, lanes);
    }
  }
  if (clamp.more) activate_pixels(y, pixels, call.y.stride[3], channels, e);
}

template <class X, class Y>
void run_rows(const PointwiseCall& original, ThreadContext& context) {
  PointwiseCall call = original;
  Epilogue& e = call.epilogue;
  int64_t* size = call.x.size;
  if (is_one_row(size, call.x.stride) && is_one_row(size, call.y.stride) &&
      (e.residual == nullptr || is_one_row(size, e.residual_stride))) {
    size[2] *= size[0] * size[1];
    size[0] = size[1] = 1;
  }
  const int64_t channels = call.x.channels, x_step = call.x.stride[3], y_step = call.y.stride[3];
  const bool dense = x_step == channels && y_step == channels &&
                     (e.residual == nullptr || e.residual_stride[3] == channels) && e.scale == nullptr &&
                     e.shift == nullptr;
  // An item is a part of a row, or some rows: to claim one takes as long as some hundred elements.
  const int64_t step = std::max<int64_t>(1, std::min(size[2], kBlock / channels)),
                blocks = (size[2] + step - 1) / step;
  const int64_t rows = call.x.batch * size[0] * size[1],
                each = std::max<int64_t>(1, kBlock / (channels * size[2]));
  for (int64_t item; next_item(context, (rows + each - 1) / each * blocks, item);) {
    const int64_t at = item % blocks * step, first = item / blocks * each, pixels = least(step, size[2] - at);
    for (int64_t row = first; row < least(first + each, rows); ++row) {
      const int64_t n = row / (size[0] * size[1]), z = row / size[1] % size[0], line = row % size[1];
      const X* x = row_of<X>(call.x, n, z, line) + at * x_step;
      const Y* residual = residual_row<Y>(e, n, z, line);
      if (residual != nullptr) residual += at * e.residual_stride[3];
      Y* y = row_of<Y>(call.y, n, z, line) + at * y_step;
      if (dense) {
        run(x, residual, y, pixels * channels, e);
      } else {
        run_scaled(call, x, residual, y, pixels);
      }
    }
  }
}

}  // namespace
}  // namespace FASTNETS_LEVEL

void FASTNETS_ENTRY(pointwise)(const PointwiseCall& call, ThreadContext& context) {
  using namespace FASTNETS_LEVEL;
  with_element(call.x.element, [&](auto x) {
    with_element(call.y.element, [&](auto y) { run_rows<decltype(x), decltype(y)>(call, context); });
  });
  finish(context);
}

}  // namespace fastnets
