#include "cpu/resize.h"

#include "cpu/pixel_rows.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

// to[i] = a[i] * (1 - weight) + b[i] * weight
FASTNETS_INLINE void blend(float* to, const float* a, const float* b, float weight, int64_t n) {
  const Vec high = Vec::set(weight), low = Vec::set(1.0F - weight);
  each_vector(n, [&](int64_t i, int lanes) {
    store_lanes(fma(load_lanes(b + i, lanes), high, load_lanes(a + i, lanes) * low), to + i, lanes);
  });
}

// to[i] = sum of weights[k] * rows[k][i]
template <int count>
FASTNETS_INLINE void sum_lines(float* to, const float* const rows[], const float* weights, int64_t n) {
  Vec w[count];
  for (int k = 0; k < count; ++k) w[k] = Vec::set(weights[k]);
  each_vector(n, [&](int64_t i, int lanes) {
    Vec sum = load_lanes(rows[0] + i, lanes) * w[0];
    for (int k = 1; k < count; ++k) sum = fma(load_lanes(rows[k] + i, lanes), w[k], sum);
    store_lanes(sum, to + i, lanes);
  });
}

FASTNETS_INLINE void copy(float* y, const float* x, int64_t n) {
  each_vector(n, [&](int64_t i, int lanes) { store_lanes(load_lanes(x + i, lanes), y + i, lanes); });
}

// The row of x from which output row (z, y) is made: one of x itself, or the sum of two or four in `line`.
// Summing along z and y first halves the work of summing along x, which has no long runs.
const float* source_row(const ResizeCall& c, int64_t n, int64_t z, int64_t y, float* line, int64_t* step) {
  const ResizeAxis &deep = c.axes[0], &high = c.axes[1];
  const float wz = deep.weight == nullptr ? 0.0F : deep.weight[z];
  const float wy = high.weight == nullptr ? 0.0F : high.weight[y];
  const float* rows[4];
  float weights[4];
  int count = 0;
  for (int corner = 0; corner < 4; ++corner) {
    const bool far = corner >= 2, below = corner % 2 == 1;
    const float weight = (far ? wz : 1.0F - wz) * (below ? wy : 1.0F - wy);
    if (weight == 0.0F) continue;
    weights[count] = weight;
    rows[count++] = row_of(c.x, n, (far ? deep.high : deep.low)[z], (below ? high.high : high.low)[y]);
  }
  *step = c.x.stride[3];
  if (count == 1) return rows[0];
  const int64_t channels = c.x.channels, width = c.x.size[2];
  const bool dense = c.x.stride[3] == channels;
  for (int64_t x = 0; x < (dense ? 1 : width); ++x) {
    float* to = line + x * channels;
    const int64_t run = dense ? width * channels : channels;
    count == 2 ? sum_lines<2>(to, rows, weights, run) : sum_lines<4>(to, rows, weights, run);
    for (int k = 0; k < count; ++k) rows[k] += c.x.stride[3];
  }
  *step = channels;
  return line;
}

// The pixels of a row, from those at low and high and the weight of the second; `pixel` makes one of two. It
// does not see what has no weight: 0 times infinity is NaN.
template <class Pixel>
FASTNETS_INLINE void blend_row(const ResizeCall& c, const float* row, int64_t step, float* out,
                               const Pixel& pixel) {
  const ResizeAxis& wide = c.axes[2];
  for (int64_t x = 0; x < c.y.size[2]; ++x, out += c.y.stride[3]) {
    const float *a = row + wide.low[x] * step, *b = row + wide.high[x] * step, weight = wide.weight[x];
    weight == 0.0F ? copy(out, a, c.y.channels) : pixel(out, a, b, weight);
  }
}

void resize_row(const ResizeCall& c, int64_t n, int64_t z, int64_t y, float* line) {
  int64_t step;
  const int64_t channels = c.y.channels;
  const float* row = source_row(c, n, z, y, line, &step);
  float* out = row_of(c.y, n, z, y);
  const ResizeAxis& wide = c.axes[2];
  if (wide.weight == nullptr) {
    for (int64_t x = 0; x < c.y.size[2]; ++x, out += c.y.stride[3])
      copy(out, row + wide.low[x] * step, channels);
  } else if (channels == 1) {  // a vector would hold one number
    blend_row(c, row, step, out, [](float* to, const float* a, const float* b, float weight) {
      *to = *a * (1.0F - weight) + *b * weight;
    });
  } else {
    blend_row(c, row, step, out, [=](float* to, const float* a, const float* b, float weight) {
      const float* pair[2] = {a, b};
      const float weights[2] = {1.0F - weight, weight};
      sum_lines<2>(to, pair, weights, channels);
    });
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
  const int64_t height = c.y.size[1], depth = c.y.size[0];
  for (int64_t i; (i = next_item(context)) < c.y.batch * depth * height;) {
    resize_row(c, i / (depth * height), i / height % depth, i % height, line);
  }
  finish(context);
}

}  // namespace fastnets
