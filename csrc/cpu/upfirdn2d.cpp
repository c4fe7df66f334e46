#include "cpu/upfirdn2d.h"

#include "cpu/pixel_rows.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

constexpr int kVecs = 4;  // vectors of channels in registers at once

// The inputs of one output along one axis, and the tap of the first; the next is up taps further.
struct Span {
  int64_t first, count, tap;
};

FASTNETS_INLINE Span span(const Upfirdn2dCall& c, int axis, int64_t out) {
  const int64_t up = c.up[axis], start = out * c.down[axis] - c.pad[axis];
  const int64_t low = start <= 0 ? 0 : (start + up - 1) / up, end = start + c.taps[axis];
  int64_t high = end <= 0 ? 0 : (end + up - 1) / up;
  if (high > c.x.size[axis + 1]) high = c.x.size[axis + 1];
  return {low, high > low ? high - low : 0, low * up - start};
}

// `vecs` vectors of channels, of which the last has `lanes` lanes, of one output: the sum over `rows` rows, a
// distance of `row` floats and of `filter_row` taps apart, of their pixels.
template <int vecs>
FASTNETS_INLINE void sum_taps(const float* x, int64_t rows, int64_t row, int64_t pixels, int64_t step,
                              const float* filter, int64_t filter_row, int64_t tap_step, float gain, float* y,
                              int lanes) {
  Vec sum[vecs];
  for (Vec& s : sum) s = Vec::set(0.0F);
  for (int64_t r = 0; r < rows; ++r) {
    const float *p = x + r * row, *tap = filter + r * filter_row;
    for (int64_t i = 0; i < pixels; ++i, p += step, tap += tap_step) {
      const Vec weight = Vec::set(*tap);
      for (int v = 0; v < vecs; ++v) {
        sum[v] = fma(load_lanes(p + v * Vec::width, v + 1 < vecs ? Vec::width : lanes), weight, sum[v]);
      }
    }
  }
  for (int v = 0; v < vecs; ++v) {
    store_lanes(sum[v] * Vec::set(gain), y + v * Vec::width, v + 1 < vecs ? Vec::width : lanes);
  }
}

// One output row from `high.count` rows of input from `x` on.
void filter_row(const Upfirdn2dCall& c, const float* x, int64_t rows, int64_t row, int64_t step,
                const float* filter, int64_t filter_row, float* y) {
  constexpr int64_t many = kVecs * Vec::width;
  const int64_t channels = c.x.channels;
  for (int64_t i = 0; i < c.y.size[2]; ++i, y += c.y.stride[3]) {
    const Span wide = span(c, 1, i);
    const float *p = x + wide.first * step, *taps = filter + wide.tap;
    int64_t ch = 0;
    for (; ch + many <= channels; ch += many) {
      sum_taps<kVecs>(p + ch, rows, row, wide.count, step, taps, filter_row, c.up[1], c.gain, y + ch,
                      Vec::width);
    }
    for (; ch < channels; ch += Vec::width) {
      sum_taps<1>(p + ch, rows, row, wide.count, step, taps, filter_row, c.up[1], c.gain, y + ch,
                  lanes_at(ch, channels));
    }
  }
}

// The sum along y of separable filters: one row instead of many.
void sum_rows(const Upfirdn2dCall& c, const float* x, const Span& high, float* line) {
  const int64_t channels = c.x.channels, width = c.x.size[2];
  const bool dense = c.x.stride[3] == channels;
  const int64_t runs = dense ? 1 : width, length = dense ? width * channels : channels;
  for (int64_t i = 0; i < runs; ++i) {
    const float* p = x + i * c.x.stride[3];
    each_vector(length, [&](int64_t k, int lanes) {
      Vec sum = Vec::set(0.0F);
      for (int64_t r = 0; r < high.count; ++r) {
        const Vec weight = Vec::set(c.filter[high.tap + r * c.up[0]]);
        sum = fma(load_lanes(p + r * c.x.stride[2] + k, lanes), weight, sum);
      }
      store_lanes(sum, line + i * channels + k, lanes);
    });
  }
}

FASTNETS_INLINE int64_t line_floats(const Upfirdn2dCall& c) {
  return c.separable ? (c.x.size[2] * c.x.channels + 15) / 16 * 16 : 0;
}

}  // namespace
}  // namespace FASTNETS_LEVEL

int64_t FASTNETS_ENTRY(upfirdn2d_scratch)(const Upfirdn2dCall& c, int threads) {
  using namespace FASTNETS_LEVEL;
  return line_floats(c) * threads * static_cast<int64_t>(sizeof(float));
}

void FASTNETS_ENTRY(upfirdn2d)(const Upfirdn2dCall& c, void* scratch, ThreadContext& context) {
  using namespace FASTNETS_LEVEL;
  float* line = static_cast<float*>(scratch) + context.thread * line_floats(c);
  const int64_t height = c.y.size[1];
  for (int64_t i; next_item(context, c.y.batch * height, i);) {
    const int64_t n = i / height, row = i % height;
    const Span high = span(c, 0, row);
    const float* x = row_of(c.x, n, 0, high.first);
    float* y = row_of(c.y, n, 0, row);
    if (c.separable) {
      sum_rows(c, x, high, line);
      filter_row(c, line, 1, 0, c.x.channels, c.filter, 0, y);
    } else {
      const float* taps = c.filter + high.tap * c.taps[1];
      filter_row(c, x, high.count, c.x.stride[2], c.x.stride[3], taps, c.up[0] * c.taps[1], y);
    }
  }
  finish(context);
}

}  // namespace fastnets
