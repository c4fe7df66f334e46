#include "cpu/grid_sample.h"

#include "cpu/pixel_rows.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

// `v` folded into [low, high] at its ends; both are halves of integers, given twice as large.
FASTNETS_INLINE float reflected(float v, int64_t low, int64_t high) {
  if (low == high) return 0.0F;
  const float start = static_cast<float>(low) / 2, span = static_cast<float>(high - low) / 2;
  float distance = v - start;
  if (distance < 0) distance = -distance;
  const float turns = __builtin_floorf(distance / span), rest = distance - turns * span;
  const bool back = turns - 2 * __builtin_floorf(turns / 2) != 0;
  return back ? span - rest + start : rest + start;
}

// A position along one axis in pixels. Not a number, or so far that an integer could not hold it: far
// outside.
FASTNETS_INLINE float position(const GridSampleCall& c, float v, int64_t size) {
  const float n = static_cast<float>(size);
  float at = c.align_corners ? (v + 1) / 2 * (n - 1) : ((v + 1) * n - 1) / 2;
  if (!(at > -1e9F && at < 1e9F)) at = at > 0 ? 1e9F : -1e9F;
  if (c.outside == Outside::reflection) {
    at = c.align_corners ? reflected(at, 0, 2 * (size - 1)) : reflected(at, -1, 2 * size - 1);
  }
  if (c.outside != Outside::zeros) at = at < 0 ? 0.0F : (at > n - 1 ? n - 1 : at);
  return at;
}

// The pixels along one axis, and their weights; weight 0 where one is outside.
struct Pair {
  int64_t at[2];
  float weight[2];
};

FASTNETS_INLINE Pair pair(const GridSampleCall& c, float v, int64_t size) {
  const float at = position(c, v, size);
  const float low = c.nearest ? __builtin_rintf(at) : __builtin_floorf(at);
  Pair p{{static_cast<int64_t>(low), static_cast<int64_t>(low) + 1}, {1.0F, 0.0F}};
  if (!c.nearest) p.weight[1] = at - low, p.weight[0] = 1.0F - p.weight[1];
  for (int i = 0; i < 2; ++i) {
    if (p.at[i] < 0 || p.at[i] >= size) p.at[i] = 0, p.weight[i] = 0.0F;
  }
  return p;
}

void one_pixel(const GridSampleCall& c, const float* image, const float* grid, float* y) {
  const Pair x = pair(c, grid[0], c.x.size[2]), rows = pair(c, grid[1], c.x.size[1]);
  const Pair planes = c.axes == 3 ? pair(c, grid[2], c.x.size[0]) : Pair{{0, 0}, {1.0F, 0.0F}};
  const float* from[8];
  float weight[8];
  int corners = 0;
  for (int k = 0; k < 8; ++k) {
    const int a = k / 4, b = k / 2 % 2, d = k % 2;
    const float w = planes.weight[a] * rows.weight[b] * x.weight[d];
    if (w == 0.0F) continue;
    from[corners] =
        image + planes.at[a] * c.x.stride[1] + rows.at[b] * c.x.stride[2] + x.at[d] * c.x.stride[3];
    weight[corners++] = w;
  }
  for (int64_t ch = 0; ch < c.x.channels; ch += Vec::width) {
    const int n = lanes_at(ch, c.x.channels);
    Vec sum = Vec::set(0.0F);
    for (int k = 0; k < corners; ++k) sum = fma(Vec::load(from[k] + ch, n), Vec::set(weight[k]), sum);
    sum.store(y + ch, n);
  }
}

}  // namespace
}  // namespace FASTNETS_LEVEL

void FASTNETS_ENTRY(grid_sample)(const GridSampleCall& c, ThreadContext& context) {
  using namespace FASTNETS_LEVEL;
  const int64_t height = c.y.size[1], depth = c.y.size[0];
  for (int64_t i; next_item(context, c.y.batch * depth * height, i);) {
    const int64_t n = i / (depth * height), z = i / height % depth, row = i % height;
    const float *image = c.x.data + n * c.x.stride[0], *grid = row_of(c.grid, n, z, row);
    float* y = row_of(c.y, n, z, row);
    for (int64_t k = 0; k < c.y.size[2]; ++k) {
      one_pixel(c, image, grid + k * c.grid.stride[3], y + k * c.y.stride[3]);
    }
  }
  finish(context);
}

}  // namespace fastnets
