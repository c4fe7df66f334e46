#include "cpu/resize.h"

#include "cpu/pixel_rows.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

// to[i] += weight * from[i]; the first term stores instead.
template <class T>
FASTNETS_INLINE void add_line(float* to, const T* from, float weight, bool first, int64_t n) {
  const Vec w = Vec::set(weight);
  for (int64_t i = 0; i < n; i += Vec::width) {
    const int lanes = lanes_at(i, n);
    const Vec v = Vec::load(from + i, lanes) * w;
    (first ? v : v + Vec::load(to + i, lanes)).store(to + i, lanes);
  }
}

template <class T, class Y>
FASTNETS_INLINE void blend(Y* y, const T* a, const T* b, float weight, int64_t n) {
  const Vec high = Vec::set(weight), low = Vec::set(1.0F - weight);
  for (int64_t i = 0; i < n; i += Vec::width) {
    const int lanes = lanes_at(i, n);
    fma(Vec::load(b + i, lanes), high, Vec::load(a + i, lanes) * low).store(y + i, lanes);
  }
}

template <class T, class Y>
FASTNETS_INLINE void copy(Y* y, const T* x, int64_t n) {
  for (int64_t i = 0; i < n; i += Vec::width) Vec::load(x + i, lanes_at(i, n)).store(y + i, lanes_at(i, n));
}

// How output row (z, y) is made of rows of x.
struct Place {
  int64_t n, z, y;
  float far, below;  // weights of the second plane and the second line
};

// The sum of two or four rows of x. Summing along z and y first halves the work of summing along x, which has
// no long runs.
template <class T>
void sum_rows(const ResizeCall& c, const Place& place, float* line) {
  const ResizeAxis &deep = c.axes[0], &high = c.axes[1];
  const bool dense = c.x.stride[3] == c.x.channels;
  bool first = true;
  for (int corner = 0; corner < 4; ++corner) {
    const bool far = corner >= 2, below = corner % 2 == 1;
    const float weight = (far ? place.far : 1.0F - place.far) * (below ? place.below : 1.0F - place.below);
    if (weight == 0.0F) continue;
    const T* row = row_of<T>(c.x, place.n, (far ? deep.high : deep.low)[place.z],
                             (below ? high.high : high.low)[place.y]);
    if (dense) {
      add_line(line, row, weight, first, c.x.size[2] * c.x.channels);
    } else {
      for (int64_t x = 0; x < c.x.size[2]; ++x) {
        add_line(line + x * c.x.channels, row + x * c.x.stride[3], weight, first, c.x.channels);
      }
    }
    first = false;
  }
}

// An output row from a row of x, or of sums, whose pixels are `step` elements apart.
template <class T, class Y>
void resize_along(const ResizeCall& c, const T* row, int64_t step, Y* out) {
  const ResizeAxis& wide = c.axes[2];
  for (int64_t x = 0; x < c.y.size[2]; ++x, out += c.y.stride[3]) {
    const float weight = wide.weight == nullptr ? 0.0F : wide.weight[x];
    const T* a = row + wide.low[x] * step;
    if (weight == 0.0F) {
      copy(out, a, c.y.channels);
    } else {
      blend(out, a, row + wide.high[x] * step, weight, c.y.channels);
    }
  }
}

template <class T>
void resize_rows(const ResizeCall& c, float* line, ThreadContext& context) {
  const ResizeAxis &deep = c.axes[0], &high = c.axes[1];
  const int64_t height = c.y.size[1], depth = c.y.size[0];
  for (int64_t i; (i = next_item(context)) < c.y.batch * depth * height;) {
    const int64_t n = i / (depth * height), z = i / height % depth, y = i % height;
    const Place place{n, z, y, deep.weight == nullptr ? 0.0F : deep.weight[z],
                      high.weight == nullptr ? 0.0F : high.weight[y]};
    T* out = row_of<T>(c.y, n, z, y);
    if (place.far == 0.0F && place.below == 0.0F) {
      resize_along(c, row_of<T>(c.x, n, deep.low[z], high.low[y]), c.x.stride[3], out);
    } else {
      sum_rows<T>(c, place, line);
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
