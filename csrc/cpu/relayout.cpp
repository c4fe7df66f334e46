#include "cpu/relayout.h"

#include "cpu/pixel_rows.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

// A tile is read along the axis that is adjacent in x, converted a vector at a time, and written along that
// of y: both its lines and columns stay in L1.
constexpr int64_t kPixels = 64, kChannels = 32;

constexpr int64_t kItem = 1 << 13;  // elements: with fewer, taking an item costs more than the copy

// The lines of a tile as columns: to[k * to_step + i] = tile[i][k]. kMajor: how many lines, or 0.
template <int kMajor, class Y>
FASTNETS_INLINE void store_columns(const Y* tile, Y* to, int64_t to_step, int64_t major, int64_t minor) {
  for (int64_t k = 0; k < minor; ++k, to += to_step) {
#pragma GCC unroll 4
    for (int64_t i = 0; i < (kMajor == 0 ? major : kMajor); ++i) to[i] = tile[i * kPixels + k];
  }
}

// to[minor * to_step + major] = from[major * from_step + minor], through a tile.
template <class X, class Y>
FASTNETS_INLINE void transpose(const X* from, int64_t from_step, Y* to, int64_t to_step, int64_t major,
                               int64_t minor) {
  Y tile[kPixels * kPixels];
  for (int64_t i = 0; i < major; ++i) {
    each_vector(minor, [&](int64_t k, int lanes) {
      store_lanes(load_lanes(from + i * from_step + k, lanes), tile + i * kPixels + k, lanes);
    });
  }
  major == 3 ? store_columns<3>(tile, to, to_step, major, minor)
             : store_columns<0>(tile, to, to_step, major, minor);
}

// `count` lines of `length` elements.
template <class X, class Y>
FASTNETS_INLINE void copy_lines(const X* from, int64_t from_step, Y* to, int64_t to_step, int64_t count,
                                int64_t length) {
  for (int64_t i = 0; i < count; ++i) {
    each_vector(length, [&](int64_t k, int lanes) {
      store_lanes(load_lanes(from + i * from_step + k, lanes), to + i * to_step + k, lanes);
    });
  }
}

template <class X, class Y>
void copy_tile(const RelayoutCall& call, const X* x, Y* y, int64_t pixels, int64_t channels) {
  const int64_t x_pixel = call.x.stride[3], y_pixel = call.y.stride[3];
  if (x_pixel == 1 && call.y_channel == 1) {
    transpose(x, call.x_channel, y, y_pixel, channels, pixels);
  } else if (call.x_channel == 1 && y_pixel == 1) {
    transpose(x, x_pixel, y, call.y_channel, pixels, channels);
  } else if (x_pixel == 1 && y_pixel == 1) {
    copy_lines(x, call.x_channel, y, call.y_channel, channels, pixels);
  } else if (call.x_channel == 1 && call.y_channel == 1) {
    copy_lines(x, x_pixel, y, y_pixel, pixels, channels);
  } else {
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t i = 0; i < pixels; ++i) {
        assign(y[c * call.y_channel + i * y_pixel], value_of(x[c * call.x_channel + i * x_pixel]));
      }
    }
  }
}

template <class X, class Y>
void copy_rows(const RelayoutCall& call, ThreadContext& context) {
  const int64_t *size = call.x.size, channels = call.x.channels;
  const int64_t each = channels * kPixels >= kItem ? kPixels : kItem / (channels * kPixels + 1) * kPixels;
  const int64_t blocks = (size[2] + each - 1) / each, rows = size[0] * size[1];
  for (int64_t i; next_item(context, call.x.batch * rows * blocks, i);) {
    const int64_t first = i % blocks * each, end = least(size[2], first + each), row = i / blocks % rows,
                  n = i / blocks / rows;
    const int64_t z = row / size[1], line = row % size[1];
    const X* x = row_of<X>(call.x, n, z, line);
    Y* y = row_of<Y>(call.y, n, z, line);
    for (int64_t at = first; at < end; at += kPixels) {
      for (int64_t c = 0; c < channels; c += kChannels) {
        copy_tile(call, x + at * call.x.stride[3] + c * call.x_channel,
                  y + at * call.y.stride[3] + c * call.y_channel, least(kPixels, end - at),
                  least(kChannels, channels - c));
      }
    }
  }
}

}  // namespace
}  // namespace FASTNETS_LEVEL

void FASTNETS_ENTRY(relayout)(const RelayoutCall& original, ThreadContext& context) {
  using namespace FASTNETS_LEVEL;
  RelayoutCall call = original;
  const ConstAnyPixels x = with_long_rows(call.x);
  const AnyPixels y = with_long_rows(call.y);
  if (x.size[0] == y.size[0] && x.size[1] == y.size[1]) call.x = x, call.y = y;
  with_element(call.x.element, [&](auto from) {
    with_element(call.y.element, [&](auto to) { copy_rows<decltype(from), decltype(to)>(call, context); });
  });
  finish(context);
}

}  // namespace fastnets
