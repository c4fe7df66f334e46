#include "cpu/pool.h"

#include <limits>

#include "cpu/pixel_rows.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

constexpr int kVecs = 4;             // vectors of channels in registers at once
constexpr int64_t kPixels = 1 << 9;  // pixels that an item of a global pooling reduces, times
constexpr int64_t kMore = 8;         // this of few channels

// The taps of a window that lie inside along one axis, and how many positions an average counts.
struct Span {
  int64_t first, taps, counted;
};

FASTNETS_INLINE Span span(const PoolCall& c, int axis, int64_t out) {
  if (c.adaptive) {
    const int64_t all = c.x.size[axis], parts = c.y.size[axis];
    const int64_t first = out * all / parts, taps = ((out + 1) * all + parts - 1) / parts - first;
    return {first, taps, taps};
  }
  const int64_t start = out * c.stride[axis] - c.pad[axis], d = c.dilation[axis], size = c.x.size[axis];
  int64_t low = start < 0 ? (-start + d - 1) / d : 0;
  int64_t high = start >= size ? 0 : (size - start + d - 1) / d;
  if (high > c.window[axis]) high = c.window[axis];
  if (high < low) high = low = 0;
  // Averages are not dilated: the window ends at the padding, not at what ceil mode adds.
  const int64_t room = size + c.pad[axis] - start;
  const int64_t counted = room < c.window[axis] ? room : c.window[axis];
  return {high == low ? 0 : start + low * d, high - low, c.count_pad ? counted : high - low};
}

template <bool average>
FASTNETS_INLINE Vec start_value() {
  return Vec::set(average ? 0.0F : -std::numeric_limits<float>::infinity());
}

template <bool average>
FASTNETS_INLINE Vec join(Vec sum, Vec v) {
  return average ? sum + v : max_or_nan(sum, v);
}

struct Window {
  int64_t taps[3], step[3];  // z, y, x; elements from tap to tap
  float divisor;
};

// `vecs` vectors of channels of one output pixel; the last has `lanes` lanes.
template <bool average, int vecs, class T>
FASTNETS_INLINE void reduce(const T* x, const Window& w, T* y, int lanes) {
  Vec sum[vecs];
  for (Vec& s : sum) s = start_value<average>();
  for (int64_t z = 0; z < w.taps[0]; ++z) {
    for (int64_t r = 0; r < w.taps[1]; ++r) {
      const T* p = x + z * w.step[0] + r * w.step[1];
      for (int64_t i = 0; i < w.taps[2]; ++i, p += w.step[2]) {
        for (int v = 0; v < vecs; ++v) {
          const T* q = p + v * Vec::width;
          sum[v] = join<average>(sum[v], load_lanes(q, v + 1 < vecs ? Vec::width : lanes));
        }
      }
    }
  }
  for (int v = 0; v < vecs; ++v) {
    const Vec result = average ? sum[v] / Vec::set(w.divisor) : sum[v];
    store_lanes(result, y + v * Vec::width, v + 1 < vecs ? Vec::width : lanes);
  }
}

template <bool average, class T>
FASTNETS_INLINE void reduce_pixel(const T* x, const Window& w, T* y, int64_t channels) {
  constexpr int64_t block = kVecs * Vec::width;
  int64_t c = 0;
  for (; c + block <= channels; c += block) reduce<average, kVecs>(x + c, w, y + c, Vec::width);
  for (; c < channels; c += Vec::width) {
    const int lanes = lanes_at(c, channels);
    reduce<average, 1>(x + c, w, y + c, lanes);
  }
}

template <bool average, class T>
void pool_row(const PoolCall& call, int64_t n, int64_t z, int64_t y) {
  const Span deep = span(call, 0, z), high = span(call, 1, y);
  const T* rows = row_of<T>(call.x, n, deep.first, high.first);
  T* out = row_of<T>(call.y, n, z, y);
  Window w{};
  w.taps[0] = deep.taps, w.taps[1] = high.taps;
  for (int i = 0; i < 3; ++i) w.step[i] = call.dilation[i] * call.x.stride[i + 1];
  for (int64_t x = 0; x < call.y.size[2]; ++x, out += call.y.stride[3]) {
    const Span wide = span(call, 2, x);
    w.taps[2] = wide.taps;
    const bool empty = deep.taps * high.taps * wide.taps == 0;  // torch: 0 for averages, -inf for maxima
    const int64_t counted = empty ? 1 : deep.counted * high.counted * wide.counted;
    w.divisor = call.divisor != 0 ? call.divisor : static_cast<float>(counted);
    reduce_pixel<average>(rows + wide.first * call.x.stride[3], w, out, call.y.channels);
  }
}

// --- global: each item reduces one block of pixels into scratch, then one item an image joins the blocks

FASTNETS_INLINE int64_t pixels_of(const PoolCall& c) { return c.x.size[0] * c.x.size[1] * c.x.size[2]; }

FASTNETS_INLINE int64_t block_of(const PoolCall& c) {
  return c.x.channels < Vec::width ? kMore * kPixels : kPixels;
}

FASTNETS_INLINE int64_t blocks_of(const PoolCall& c) {
  return (pixels_of(c) + block_of(c) - 1) / block_of(c);
}

// `vecs` vectors of channels of the pixels [first, last) of image n. Rows are summed apart, and blocks too:
// each stage adds few numbers, so that the error of a sum does not grow with the image.
template <bool average, int vecs, class T>
FASTNETS_INLINE void reduce_block(const PoolCall& c, const T* image, int64_t first, int64_t last, float* out,
                                  int lanes) {
  const int64_t width = c.x.size[2], height = c.x.size[1], step = c.x.stride[3];
  Vec sum[vecs];
  for (Vec& s : sum) s = start_value<average>();
  for (int64_t i = first; i < last;) {
    const int64_t row = i / width, x = i % width;
    const int64_t run = width - x < last - i ? width - x : last - i;
    const T* p = image + row / height * c.x.stride[1] + row % height * c.x.stride[2] + x * step;
    Vec part[vecs];
    for (Vec& s : part) s = start_value<average>();
    for (int64_t k = 0; k < run; ++k, p += step) {
      for (int v = 0; v < vecs; ++v) {
        const T* q = p + v * Vec::width;
        part[v] = join<average>(part[v], load_lanes(q, v + 1 < vecs ? Vec::width : lanes));
      }
    }
    for (int v = 0; v < vecs; ++v) sum[v] = join<average>(sum[v], part[v]);
    i += run;
  }
  for (int v = 0; v < vecs; ++v) sum[v].store(out + v * Vec::width, v + 1 < vecs ? Vec::width : lanes);
}

FASTNETS_INLINE float join_numbers(float sum, float v, bool average) {
  return average ? sum + v : (v > sum || v != v ? v : sum);
}

// Of fewer channels than a vector has lanes, in dense rows: vectors of whole pixels, kFew times as many lanes
// as there are channels, so that each lane always has the same channel.
constexpr int kFew = 4;

template <bool average, class T>
FASTNETS_INLINE void reduce_few(const PoolCall& c, const T* image, int64_t first, int64_t last, float* out) {
  const int64_t channels = c.x.channels, once = channels * Vec::width, period = kFew * once;
  const T *p = image + first * channels, *end = image + last * channels;
  float sums[kFew * Vec::width * Vec::width];
  const auto add = [&](int64_t i, Vec v) { join<average>(Vec::load(sums + i), v).store(sums + i); };
  for (int64_t i = 0; i < period; i += Vec::width) start_value<average>().store(sums + i);
  for (; p + period <= end; p += period) {
    for (int64_t i = 0; i < period; i += Vec::width) add(i, Vec::load(p + i));
  }
  for (int64_t i = once; i < period; i += Vec::width) add(i % once, Vec::load(sums + i));
  for (int64_t i = 0; p < end; ++p, ++i) sums[i % once] = join_numbers(sums[i % once], value_of(*p), average);
  for (int64_t ch = 0; ch < channels; ++ch) {
    out[ch] = sums[ch];
    for (int64_t i = ch + channels; i < once; i += channels)
      out[ch] = join_numbers(out[ch], sums[i], average);
  }
}

FASTNETS_INLINE bool is_dense(const PoolCall& c) {
  const ConstAnyPixels x = with_long_rows(c.x);
  return x.size[0] == 1 && x.size[1] == 1 && x.stride[3] == x.channels;
}

template <bool average, class T>
void pool_block(const PoolCall& c, int64_t n, int64_t block, float* out) {
  constexpr int64_t many = kVecs * Vec::width;
  const T* image = row_of<T>(c.x, n, 0, 0);
  const int64_t first = block * block_of(c), channels = c.x.channels;
  const int64_t last = first + block_of(c) < pixels_of(c) ? first + block_of(c) : pixels_of(c);
  if (channels < Vec::width && is_dense(c)) return reduce_few<average>(c, image, first, last, out);
  int64_t ch = 0;
  for (; ch + many <= channels; ch += many) {
    reduce_block<average, kVecs>(c, image + ch, first, last, out + ch, Vec::width);
  }
  for (; ch + 2 * Vec::width <= channels; ch += 2 * Vec::width) {
    reduce_block<average, 2>(c, image + ch, first, last, out + ch, Vec::width);
  }
  for (; ch < channels; ch += Vec::width) {
    const int lanes = lanes_at(ch, channels);
    reduce_block<average, 1>(c, image + ch, first, last, out + ch, lanes);
  }
}

template <bool average, class T>
void join_blocks(const PoolCall& c, int64_t n, const float* parts) {
  const float divisor = c.divisor != 0 ? c.divisor : static_cast<float>(pixels_of(c));
  T* y = row_of<T>(c.y, n, 0, 0);
  for (int64_t ch = 0; ch < c.x.channels; ++ch) {
    const float* p = parts + ch;
    double sum = 0;
    float largest = *p;
    for (int64_t b = 0; b < blocks_of(c); ++b, p += c.x.channels) {
      sum += *p;
      if (*p > largest || *p != *p) largest = *p;
    }
    assign(y[ch], average ? static_cast<float>(sum / divisor) : largest);
  }
}

template <class T>
void pool_rows(const PoolCall& c, ThreadContext& context) {
  const int64_t height = c.y.size[1], depth = c.y.size[0];
  for (int64_t i; next_item(context, c.y.batch * depth * height, i);) {
    const int64_t n = i / (depth * height), z = i / height % depth, y = i % height;
    c.average ? pool_row<true, T>(c, n, z, y) : pool_row<false, T>(c, n, z, y);
  }
}

template <class T>
void pool_images(const PoolCall& c, float* parts, ThreadContext& context) {
  const int64_t blocks = blocks_of(c);
  for (int64_t i; next_item(context, c.x.batch * blocks, i);) {
    float* part = parts + i * c.x.channels;
    c.average ? pool_block<true, T>(c, i / blocks, i % blocks, part)
              : pool_block<false, T>(c, i / blocks, i % blocks, part);
  }
  finish(context);
  for (int64_t n; next_item(context, c.x.batch, n);) {
    const float* mine = parts + n * blocks * c.x.channels;
    c.average ? join_blocks<true, T>(c, n, mine) : join_blocks<false, T>(c, n, mine);
  }
}

}  // namespace
}  // namespace FASTNETS_LEVEL

void FASTNETS_ENTRY(pool)(const PoolCall& c, ThreadContext& context) {
  using namespace FASTNETS_LEVEL;
  with_element(c.y.element, [&](auto zero) { pool_rows<decltype(zero)>(c, context); });
  finish(context);
}

int64_t FASTNETS_ENTRY(pool_global_scratch)(const PoolCall& c) {
  using namespace FASTNETS_LEVEL;
  return c.x.batch * blocks_of(c) * c.x.channels * static_cast<int64_t>(sizeof(float));
}

void FASTNETS_ENTRY(pool_global)(const PoolCall& c, void* scratch, ThreadContext& context) {
  using namespace FASTNETS_LEVEL;
  with_element(c.y.element,
               [&](auto zero) { pool_images<decltype(zero)>(c, static_cast<float*>(scratch), context); });
  finish(context);
}

}  // namespace fastnets
