#include "cpu/channel_norm.h"

#include "cpu/lane_sums.h"
#include "cpu/pixel_rows.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

// One pixel. `line` has room for the channels and a vector more; whole vectors of it are read.

template <class T>
FASTNETS_INLINE void layer(const ChannelNormCall& call, const T* x, T* y, float* line) {
  const int64_t channels = call.x.channels;
  const float count = static_cast<float>(channels);
  // Differences from the first channel, then from the mean: a large mean costs no precision.
  const Vec first = Vec::set(value_of(x[0])), zero = Vec::set(0.0F);
  Vec sum = zero;
  each_vector(channels, [&](int64_t c, int lanes) {
    const Vec v = first_lanes(load_lanes(x + c, lanes) - first, lanes, zero);
    v.store(line + c);
    sum = sum + v;
  });
  const Vec mean = Vec::set(lane_sum(sum) / count);
  Vec square = zero;
  each_vector(channels, [&](int64_t c, int lanes) {
    const Vec d = first_lanes(Vec::load(line + c) - mean, lanes, zero);
    d.store(line + c);
    square = fma(d, d, square);
  });
  const Vec inverse = Vec::set(1.0F / __builtin_sqrtf(lane_sum(square) / count + call.epsilon));
  each_vector(channels, [&](int64_t c, int lanes) {
    store_lanes(ChannelTerms(call.epilogue, c, lanes)(Vec::load(line + c) * inverse), y + c, lanes);
  });
}

// A base to the power -p. Networks use 0.75, which two roots give 20 times faster than powf.
FASTNETS_INLINE void negative_power(float* base, int64_t n, float p) {
  if (p == 0.75F) {
    for (int64_t i = 0; i < n; ++i) {
      const float root = __builtin_sqrtf(base[i]);
      base[i] = 1.0F / (root * __builtin_sqrtf(root));
    }
  } else {
    for (int64_t i = 0; i < n; ++i) base[i] = __builtin_powf(base[i], -p);
  }
}

// `line` holds the channels and the window twice.
template <class T>
FASTNETS_INLINE void local_response(const ChannelNormCall& call, const T* x, T* y, float* line) {
  const int64_t channels = call.x.channels, before = call.window / 2, after = (call.window - 1) / 2;
  float* base = line + channels + call.window;
  for (int64_t c = 0; c < before; ++c) line[c] = 0.0F;
  for (int64_t c = 0; c < after; ++c) line[before + channels + c] = 0.0F;
  for (int64_t c = 0; c < channels; c += Vec::width) {
    const Vec v = Vec::load(x + c, lanes_at(c, channels));
    (v * v).store(line + before + c, lanes_at(c, channels));
  }
  const Vec factor = Vec::set(call.factor / static_cast<float>(call.window)), offset = Vec::set(call.offset);
  for (int64_t c = 0; c < channels; c += Vec::width) {
    const int lanes = lanes_at(c, channels);
    Vec sum = Vec::set(0.0F);
    for (int64_t i = 0; i < call.window; ++i) sum = sum + Vec::load(line + c + i, lanes);
    fma(sum, factor, offset).store(base + c, lanes);
  }
  negative_power(base, channels, call.power);
  for (int64_t c = 0; c < channels; c += Vec::width) {
    const int lanes = lanes_at(c, channels);
    (Vec::load(x + c, lanes) * Vec::load(base + c, lanes)).store(y + c, lanes);
  }
}

template <class T>
FASTNETS_INLINE void softmax(const ChannelNormCall& call, const T* x, T* y, float* line) {
  const int64_t channels = call.x.channels;
  const Vec least = Vec::set(-std::numeric_limits<float>::infinity());
  Vec largest = least;
  each_vector(channels, [&](int64_t c, int lanes) {
    const Vec v = first_lanes(load_lanes(x + c, lanes), lanes, least);
    v.store(line + c);
    largest = max(largest, v);
  });
  alignas(64) float lanes_of[Vec::width];
  largest.store(lanes_of);
  float most = lanes_of[0];
  for (const float lane : lanes_of) most = lane > most ? lane : most;
  Vec sum = Vec::set(0.0F);
  for (int64_t c = 0; c < channels; c += Vec::width) {
    const Vec e = exp(Vec::load(line + c) - Vec::set(most));
    e.store(line + c);
    sum = sum + e;
  }
  const Vec inverse = Vec::set(1.0F / lane_sum(sum));
  for (int64_t c = 0; c < channels; c += Vec::width) {
    (Vec::load(line + c) * inverse).store(y + c, lanes_at(c, channels));
  }
}

template <class T>
FASTNETS_INLINE void unit(const ChannelNormCall& call, const T* x, T* y) {
  Vec square = Vec::set(0.0F);
  each_vector(call.x.channels, [&](int64_t c, int lanes) {
    const Vec v = load_lanes(x + c, lanes);
    square = fma(v, v, square);
  });
  const float length = __builtin_sqrtf(lane_sum(square));
  const Vec divisor = Vec::set(length < call.epsilon ? call.epsilon : length);  // NaN stays
  each_vector(call.x.channels,
              [&](int64_t c, int lanes) { store_lanes(load_lanes(x + c, lanes) / divisor, y + c, lanes); });
}

// Few channels would leave a pixel's vectors half empty, and its sums are chains of dependent steps: lanes
// are pixels instead, and `line` holds their values channel by channel.
constexpr int64_t kFewChannels = 24;
constexpr int64_t kPixels = 64;

FASTNETS_INLINE bool pixels_fill_vectors(const ChannelNormCall& call) {
  return call.kind == ChannelNorm::softmax && call.x.channels < kFewChannels;
}

template <class T>
void softmax_pixels(const ChannelNormCall& call, const T* x, T* y, int64_t pixels, float* line) {
  const int64_t channels = call.x.channels, x_step = call.x.stride[3], y_step = call.y.stride[3];
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t p = 0; p < pixels; ++p) line[c * kPixels + p] = value_of(x[p * x_step + c]);
  }
  for (int64_t p = 0; p < pixels; p += Vec::width) {
    Vec largest = Vec::load(line + p), sum = Vec::set(0.0F);
    for (int64_t c = 1; c < channels; ++c) largest = max(largest, Vec::load(line + c * kPixels + p));
    for (int64_t c = 0; c < channels; ++c) {
      const Vec e = exp(Vec::load(line + c * kPixels + p) - largest);
      e.store(line + c * kPixels + p);
      sum = sum + e;
    }
    const Vec inverse = Vec::set(1.0F) / sum;
    for (int64_t c = 0; c < channels; ++c) {
      float* const e = line + c * kPixels + p;
      (Vec::load(e) * inverse).store(e);
    }
  }
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t p = 0; p < pixels; ++p) assign(y[p * y_step + c], line[c * kPixels + p]);
  }
}

template <class T>
void normalize_pixel(const ChannelNormCall& call, const T* x, T* y, float* line) {
  if (call.kind == ChannelNorm::layer) layer(call, x, y, line);
  if (call.kind == ChannelNorm::local_response) local_response(call, x, y, line);
  if (call.kind == ChannelNorm::softmax) softmax(call, x, y, line);
  if (call.kind == ChannelNorm::unit) unit(call, x, y);
}

FASTNETS_INLINE int64_t line_floats(const ChannelNormCall& call) {
  if (pixels_fill_vectors(call)) return kPixels * call.x.channels;
  const int64_t window = call.kind == ChannelNorm::local_response ? call.window : 0;
  return (2 * (call.x.channels + window) + 16 + 15) / 16 * 16;
}

template <class T>
void normalize_rows(const ChannelNormCall& call, float* line, ThreadContext& context) {
  const int64_t height = call.y.size[1], depth = call.y.size[0];
  for (int64_t i; next_item(context, call.x.batch * depth * height, i);) {
    const int64_t n = i / (depth * height), z = i / height % depth, row = i % height;
    const T* x = row_of<T>(call.x, n, z, row);
    T* y = row_of<T>(call.y, n, z, row);
    const int64_t width = call.x.size[2], step = pixels_fill_vectors(call) ? kPixels : 1;
    for (int64_t k = 0; k < width; k += step, x += step * call.x.stride[3], y += step * call.y.stride[3]) {
      const int64_t pixels = width - k < step ? width - k : step;
      if (step > 1) {
        softmax_pixels(call, x, y, pixels, line);
      } else {
        normalize_pixel(call, x, y, line);
      }
      if (call.epilogue.activation != Activation::none) {
        activate_pixels(y, pixels, call.y.stride[3], call.x.channels, call.epilogue);
      }
    }
  }
}

}  // namespace
}  // namespace FASTNETS_LEVEL

int64_t FASTNETS_ENTRY(channel_norm_scratch)(const ChannelNormCall& call, int threads) {
  using namespace FASTNETS_LEVEL;
  return line_floats(call) * threads * static_cast<int64_t>(sizeof(float));
}

void FASTNETS_ENTRY(channel_norm)(const ChannelNormCall& call, void* scratch, ThreadContext& context) {
  using namespace FASTNETS_LEVEL;
  float* line = static_cast<float*>(scratch) + context.thread * line_floats(call);
  with_element(call.y.element, [&](auto zero) { normalize_rows<decltype(zero)>(call, line, context); });
  finish(context);
}

}  // namespace fastnets
