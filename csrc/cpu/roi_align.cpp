#include "cpu/roi_align.h"

#include "cpu/pixel_rows.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

// Along one axis: the two pixels around a sample, and the weight of the second.
struct Sample {
  int64_t low, high;
  float weight;
  bool inside;
};

// A sample up to one pixel outside takes the value of the edge; farther out it counts as 0.
FASTNETS_INLINE Sample sample(float position, int64_t size) {
  if (!(position >= -1.0F && position <= static_cast<float>(size))) return {0, 0, 0.0F, false};
  const float at = position > 0.0F ? position : 0.0F;
  const auto low = static_cast<int64_t>(at);
  if (low >= size - 1) return {size - 1, size - 1, 0.0F, true};
  return {low, low + 1, at - static_cast<float>(low), true};
}

struct Bins {
  float start, size;  // of the first bin, and of each, in pixels
  int64_t samples;
};

FASTNETS_INLINE Bins bins(const RoiAlignCall& c, float first, float last, int64_t count) {
  const float offset = c.aligned ? 0.5F : 0.0F;
  const float start = first * c.scale - offset, end = last * c.scale - offset;
  float length = end - start;
  if (!c.aligned && length < 1.0F) length = 1.0F;
  const float size = length / static_cast<float>(count);
  const auto whole = static_cast<int64_t>(size);
  return {start, size, c.samples > 0 ? c.samples : whole + (size > static_cast<float>(whole) ? 1 : 0)};
}

FASTNETS_INLINE float position(const Bins& b, int64_t bin, int64_t i) {
  return b.start + static_cast<float>(bin) * b.size +
         (static_cast<float>(i) + 0.5F) * b.size / static_cast<float>(b.samples);
}

// y += the bilinear sample of four pixels.
FASTNETS_INLINE void add_sample(const float* top, const float* bottom, const Sample& x, int64_t step,
                                float below, float* y, int64_t channels) {
  const Vec w0 = Vec::set((1.0F - below) * (1.0F - x.weight)), w1 = Vec::set((1.0F - below) * x.weight);
  const Vec w2 = Vec::set(below * (1.0F - x.weight)), w3 = Vec::set(below * x.weight);
  const int64_t low = x.low * step, high = x.high * step;
  for (int64_t c = 0; c < channels; c += Vec::width) {
    const int n = lanes_at(c, channels);
    Vec sum = fma(Vec::load(top + low + c, n), w0, Vec::load(y + c, n));
    sum = fma(Vec::load(top + high + c, n), w1, sum);
    sum = fma(Vec::load(bottom + low + c, n), w2, sum);
    fma(Vec::load(bottom + high + c, n), w3, sum).store(y + c, n);
  }
}

void one_bin(const RoiAlignCall& c, const float* image, const Bins& rows, const Bins& columns, int64_t bin_y,
             int64_t bin_x, float* y) {
  const int64_t channels = c.x.channels;
  for (int64_t i = 0; i < channels; i += Vec::width) Vec::set(0.0F).store(y + i, lanes_at(i, channels));
  for (int64_t r = 0; r < rows.samples; ++r) {
    const Sample down = sample(position(rows, bin_y, r), c.x.size[1]);
    if (!down.inside) continue;
    for (int64_t k = 0; k < columns.samples; ++k) {
      const Sample across = sample(position(columns, bin_x, k), c.x.size[2]);
      if (!across.inside) continue;
      add_sample(image + down.low * c.x.stride[2], image + down.high * c.x.stride[2], across, c.x.stride[3],
                 down.weight, y, channels);
    }
  }
  const int64_t count = rows.samples * columns.samples;
  const Vec share = Vec::set(count > 0 ? 1.0F / static_cast<float>(count) : 0.0F);
  for (int64_t i = 0; i < channels; i += Vec::width) {
    const int n = lanes_at(i, channels);
    (Vec::load(y + i, n) * share).store(y + i, n);
  }
}

}  // namespace
}  // namespace FASTNETS_LEVEL

void FASTNETS_ENTRY(roi_align)(const RoiAlignCall& c, ThreadContext& context) {
  using namespace FASTNETS_LEVEL;
  const int64_t height = c.y.size[1], width = c.y.size[2];
  for (int64_t i; next_item(context, c.y.batch * height, i);) {
    const int64_t box = i / height, bin_y = i % height;
    const float* b = c.boxes + 5 * box;
    const float* image = c.x.data + static_cast<int64_t>(b[0]) * c.x.stride[0];
    const Bins columns = bins(c, b[1], b[3], width), rows = bins(c, b[2], b[4], height);
    float* y = row_of(c.y, box, 0, bin_y);
    for (int64_t x = 0; x < width; ++x) one_bin(c, image, rows, columns, bin_y, x, y + x * c.y.stride[3]);
  }
  finish(context);
}

}  // namespace fastnets
