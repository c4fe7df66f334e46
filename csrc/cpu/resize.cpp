#include "cpu/resize.h"

#include "cpu/pixel_rows.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

// to[i] += weight * from[i]; the first term stores instead.
FASTNETS_INLINE void add_line(float* to, const float* from, float weight, bool first, int64_t n) {
  const Vec w = Vec::set(weight);
  for (int64_t i = 0; i < n; i += Vec::width) {
    const int lanes = lanes_at(i, n);
    const Vec v = Vec::load(from + i, lanes) * w;
    (first ? v : v + Vec::load(to + i, lanes)).store(to + i, lanes);
  }
}

FASTNETS_INLINE void blend(float* y, const float* a, const float* b, float weight, int64_t n) {
  const Vec high = Vec::set(weight), low = Vec::set(1.0F - weight);
  for (int64_t i = 0; i < n; i += Vec::width) {
    const int lanes = lanes_at(i, n);
    fma(Vec::load(b + i, lanes), high, Vec::load(a + i, lanes) * low).store(y + i, lanes);
  }
}

FASTNETS_INLINE void copy(float* y, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; i += Vec::width) Vec::load(x + i, lanes_at(i, n)).store(y + i, lanes_at(i, n));
}

// The row of x from which output row (z, y) is made: one of x itself, or the sum of two or four in `line`.
// Summing along z and y first halves the work of summing along x, which has no long runs.
const float* source_row(const ResizeCall& c, int64_t n, int64_t z, int64_t y, float* line, int64_t* step) {
  const ResizeAxis &deep = c.axes[0], &high = c.axes[1];
  const float* image = c.x.data + n * c.x.stride[0];
  *step = c.x.stride[3];
  const float wz = deep.weight == nullptr ? 0.0F : deep.weight[z];
  const float wy = high.weight == nullptr ? 0.0F : high.weight[y];
  if (wz == 0.0F && wy == 0.0F) return image + deep.low[z] * c.x.stride[1] + high.low[y] * c.x.stride[2];
  const bool dense = c.x.stride[3] == c.x.channels;
  bool first = true;
  for (int corner = 0; corner < 4; ++corner) {
    const bool far = corner >= 2, below = corner % 2 == 1;
    const float weight = (far ? wz : 1.0F - wz) * (below ? wy : 1.0F - wy);
    if (weight == 0.0F) continue;
    const float* row = image + (far ? deep.high : deep.low)[z] * c.x.stride[1] +
                       (below ? high.high : high.low)[y] * c.x.stride[2];
    if (dense) {
      add_line(line, row, weight, first, c.x.size[2] * c.x.channels);
    } else {
      for (int64_t x = 0; x < c.x.size[2]; ++x) {
        add_line(line + x * c.x.channels, row + x * c.x.stride[3], weight, first, c.x.channels);
      }
    }
    first = false;
  }
  *step = c.x.channels;
  return line;
}

void resize_row(const ResizeCall& c, int64_t n, int64_t z, int64_t y, float* line) {
  int64_t step;
  const float* row = source_row(c, n, z, y, line, &step);
  float* out = row_of(c.y, n, z, y);
  const ResizeAxis& wide = c.axes[2];
  for (int64_t x = 0; x < c.y.size[2]; ++x, out += c.y.stride[3]) {
    const float weight = wide.weight == nullptr ? 0.0F : wide.weight[x];
    const float* a = row + wide.low[x] * step;
    if (weight == 0.0F) {
      copy(out, a, c.y.channels);
    } else {
      blend(out, a, row + wide.high[x] * step, weight, c.y.channels);
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
  const int64_t height = c.y.size[1], depth = c.y.size[0];
  for (int64_t i; (i = next_item(context)) < c.y.batch * depth * height;) {
    resize_row(c, i / (depth * height), i / height % depth, i % height, line);
  }
  finish(context);
}

}  // namespace fastnets
