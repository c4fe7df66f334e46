#include "cpu/resize.h"

#include "cpu/pixel_rows.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

// to[i] = sum of weights[k] * rows[k][i]
template <int count, class S, class T>
FASTNETS_INLINE void sum_lines(T* to, const S* const rows[], const float* weights, int64_t n) {
  Vec w[count];
  for (int k = 0; k < count; ++k) w[k] = Vec::set(weights[k]);
  each_vector(n, [&](int64_t i, int lanes) {
    Vec sum = load_lanes(rows[0] + i, lanes) * w[0];
    for (int k = 1; k < count; ++k) sum = fma(load_lanes(rows[k] + i, lanes), w[k], sum);
    store_lanes(sum, to + i, lanes);
  });
}

template <class S, class T>
FASTNETS_INLINE void copy(T* y, const S* x, int64_t n) {
  each_vector(n, [&](int64_t i, int lanes) { store_lanes(load_lanes(x + i, lanes), y + i, lanes); });
}

// The rows of x that make an output row: one, two or four.
template <class T>
struct Source {
  const T* rows[4];
  float weights[4];
  int count;
};

template <class T>
FASTNETS_INLINE Source<T> source_of(const ResizeCall& c, int64_t n, int64_t z, int64_t y) {
  const ResizeAxis &deep = c.axes[0], &high = c.axes[1];
  const float wz = deep.weight == nullptr ? 0.0F : deep.weight[z];
  const float wy = high.weight == nullptr ? 0.0F : high.weight[y];
  Source<T> source{};
  for (int corner = 0; corner < 4; ++corner) {
    const bool far = corner >= 2, below = corner % 2 == 1;
    const float weight = (far ? wz : 1.0F - wz) * (below ? wy : 1.0F - wy);
    if (weight == 0.0F) continue;
    source.weights[source.count] = weight;
    source.rows[source.count++] =
        row_of<T>(c.x, n, (far ? deep.high : deep.low)[z], (below ? high.high : high.low)[y]);
  }
  return source;
}

// The sum of two or four rows, dense. Summing along z and y first halves the work of summing along x, which
// has no long runs.
template <class T>
FASTNETS_INLINE void sum_source(const ResizeCall& c, Source<T> source, float* line) {
  const int64_t channels = c.x.channels, width = c.x.size[2];
  const bool dense = c.x.stride[3] == channels;
  const int64_t run = dense ? width * channels : channels;
  for (int64_t x = 0; x < (dense ? 1 : width); ++x) {
    float* to = line + x * channels;
    source.count == 2 ? sum_lines<2>(to, source.rows, source.weights, run)
                      : sum_lines<4>(to, source.rows, source.weights, run);
    for (int k = 0; k < source.count; ++k) source.rows[k] += c.x.stride[3];
  }
}

// The pixels of a row, from those at low and high and the weight of the second; `pixel` makes one of two. It
// does not see what has no weight: 0 times infinity is NaN.
template <class S, class T, class Pixel>
FASTNETS_INLINE void blend_row(const ResizeCall& c, const S* row, int64_t step, T* out, const Pixel& pixel) {
  const ResizeAxis& wide = c.axes[2];
  for (int64_t x = 0; x < c.y.size[2]; ++x, out += c.y.stride[3]) {
    const S *a = row + wide.low[x] * step, *b = row + wide.high[x] * step;
    wide.weight[x] == 0.0F ? copy(out, a, c.y.channels) : pixel(out, a, b, wide.weight[x]);
  }
}

// An output row from a row of x, or of sums, whose pixels are `step` elements apart.
template <class S, class T>
void resize_along(const ResizeCall& c, const S* row, int64_t step, T* out) {
  const int64_t channels = c.y.channels;
  const ResizeAxis& wide = c.axes[2];
  if (wide.weight == nullptr) {
    for (int64_t x = 0; x < c.y.size[2]; ++x, out += c.y.stride[3]) {
      copy(out, row + wide.low[x] * step, channels);
    }
  } else if (channels == 1) {  // a vector would hold one number
    blend_row(c, row, step, out, [](T* to, const S* a, const S* b, float weight) {
      assign(*to, value_of(*a) * (1.0F - weight) + value_of(*b) * weight);
    });
  } else {
    blend_row(c, row, step, out, [=](T* to, const S* a, const S* b, float weight) {
      const S* pair[2] = {a, b};
      const float weights[2] = {1.0F - weight, weight};
      sum_lines<2>(to, pair, weights, channels);
    });
  }
}

template <class T>
void resize_rows(const ResizeCall& c, float* line, ThreadContext& context) {
  const int64_t height = c.y.size[1], depth = c.y.size[0];
  for (int64_t i; next_item(context, c.y.batch * depth * height, i);) {
    const int64_t n = i / (depth * height), z = i / height % depth, y = i % height;
    const Source<T> source = source_of<T>(c, n, z, y);
    T* out = row_of<T>(c.y, n, z, y);
    if (source.count == 1) {
      resize_along(c, source.rows[0], c.x.stride[3], out);
    } else {
      sum_source(c, source, line);
      resize_along(c, line, c.x.channels, out);
    }
  }
}

FASTNETS_INLINE int64_t line_bytes(const ResizeCall& c) {
  return (c.x.size[2] * c.x.channels * static_cast<int64_t>(sizeof(float)) + 63) / 64 * 64;
}

}  // namespace
}  // namespace FASTNETS_LEVEL

int64_t FASTNETS_ENTRY(resize_scratch)(const ResizeCall& c, int threads) {
  using namespace FASTNETS_LEVEL;
  return line_bytes(c) * threads;
}

void FASTNETS_ENTRY(resize)(const ResizeCall& c, void* scratch, ThreadContext& context) {
  using namespace FASTNETS_LEVEL;
  auto* line = reinterpret_cast<float*>(static_cast<char*>(scratch) + context.thread * line_bytes(c));
  with_element(c.y.element, [&](auto zero) { resize_rows<decltype(zero)>(c, line, context); });
  finish(context);
}

}  // namespace fastnets
