#include "cpu/norm.h"

#include "cpu/pixel_rows.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

// Moments are exact to float rounding whatever the mean, in one pass over memory. A run of pixels that fits
// L1 is read twice: for its mean, then for the squares of the differences from that. Runs are joined in
// double by the formula of Chan, Golub and LeVeque (1979). Differences from a run's first pixel would need
// one reading, but lost 20 units of the last place where that pixel was an outlier.
constexpr int64_t kRun = 64;
constexpr int64_t kBlock = 512;  // pixels of an item, at least
constexpr int64_t kBlocks = 64;  // items an image, at most: one thread joins them
constexpr int kVecs = 4;

FASTNETS_INLINE int64_t pixels_of(const ConstAnyPixels& x) { return x.size[0] * x.size[1] * x.size[2]; }

FASTNETS_INLINE int64_t block_of(const ConstAnyPixels& x) {
  const int64_t least = (pixels_of(x) + kBlocks - 1) / kBlocks;
  return least > kBlock ? least : kBlock;
}

FASTNETS_INLINE int64_t blocks_of(const ConstAnyPixels& x) {
  return (pixels_of(x) + block_of(x) - 1) / block_of(x);
}

// Of `pixels` pixels: a center close to the mean, the sums of the differences from it, and those of their
// squares.
template <int vecs, class T>
FASTNETS_INLINE void sum_run(const T* x, int64_t pixels, int64_t step, int lanes, float* centers, float* sums,
                             float* squares) {
  Vec center[vecs], sum[vecs], square[vecs];
  const auto load = [&](int64_t i, int v) {
    const T* p = x + i * step + v * Vec::width;
    return load_lanes(p, v + 1 < vecs ? Vec::width : lanes);
  };
  for (int v = 0; v < vecs; ++v) center[v] = load(0, v), sum[v] = square[v] = Vec::set(0.0F);
  for (int64_t i = 1; i < pixels; ++i) {
    for (int v = 0; v < vecs; ++v) sum[v] = sum[v] + (load(i, v) - center[v]);
  }
  const Vec inverse = Vec::set(1.0F / static_cast<float>(pixels));
  for (int v = 0; v < vecs; ++v) center[v] = fma(sum[v], inverse, center[v]), sum[v] = Vec::set(0.0F);
  for (int64_t i = 0; i < pixels; ++i) {
    for (int v = 0; v < vecs; ++v) {
      const Vec d = load(i, v) - center[v];
      sum[v] = sum[v] + d;
      square[v] = fma(d, d, square[v]);
    }
  }
  for (int v = 0; v < vecs; ++v) {
    const int count = v + 1 < vecs ? Vec::width : lanes;
    center[v].store(centers + v * Vec::width, count);
    sum[v].store(sums + v * Vec::width, count);
    square[v].store(squares + v * Vec::width, count);
  }
}

// Adds `n` pixels with these sums to mean and m2 (the sum of squared deviations) of `before` pixels.
FASTNETS_INLINE void join_run(double* mean, double* m2, int64_t before, const float* centers,
                              const float* sums, const float* squares, int64_t n, int64_t channels) {
  const double inverse = 1.0 / static_cast<double>(n);
  const double share = static_cast<double>(n) / static_cast<double>(before + n);
  const double both = share * static_cast<double>(before);
  for (int64_t c = 0; c < channels; ++c) {
    const double sum = sums[c], part = centers[c] + sum * inverse, delta = part - mean[c];
    const double own = squares[c] - sum * sum * inverse;
    mean[c] += delta * share;
    m2[c] += (own > 0 || own != own ? own : 0) + delta * delta * both;
  }
}

// part: mean [channels], then m2 [channels], of one block of pixels of image n.
template <class T>
void block_moments(const ConstAnyPixels& x, int64_t n, int64_t block, double* part) {
  constexpr int64_t many = kVecs * Vec::width;
  const int64_t width = x.size[2], height = x.size[1], channels = x.channels, step = x.stride[3];
  const int64_t first = block * block_of(x), end = first + block_of(x);
  const int64_t last = end < pixels_of(x) ? end : pixels_of(x);
  for (int64_t c = 0; c < 2 * channels; ++c) part[c] = 0;
  for (int64_t i = first; i < last;) {
    const int64_t row = i / width, column = i % width;
    int64_t run = width - column < last - i ? width - column : last - i;
    if (run > kRun) run = kRun;
    const T* p = row_of<T>(x, n, row / height, row % height) + column * step;
    alignas(64) float centers[many], sums[many], squares[many];
    for (int64_t c = 0; c < channels;) {
      const int64_t left = channels - c;
      int64_t count = left < many ? (left < Vec::width ? left : Vec::width) : many;
      if (left >= many) {
        sum_run<kVecs>(p + c, run, step, Vec::width, centers, sums, squares);
      } else if (left >= 2 * Vec::width) {
        count = 2 * Vec::width;
        sum_run<2>(p + c, run, step, Vec::width, centers, sums, squares);
      } else {
        sum_run<1>(p + c, run, step, static_cast<int>(count), centers, sums, squares);
      }
      join_run(part + c, part + channels + c, i - first, centers, sums, squares, run, count);
      c += count;
    }
    i += run;
  }
}

// Mean and variance of image n from its blocks, which become useless: [channels][2].
void join_blocks(const ConstAnyPixels& x, double* parts, double* moments) {
  const int64_t channels = x.channels, block = block_of(x), pixels = pixels_of(x);
  double *mean = parts, *m2 = parts + channels;
  for (int64_t b = 1; b < blocks_of(x); ++b) {
    const double *mean_b = parts + 2 * b * channels, *m2_b = mean_b + channels;
    const int64_t before = b * block, n = pixels - before < block ? pixels - before : block;
    const double share = static_cast<double>(n) / static_cast<double>(before + n);
    for (int64_t c = 0; c < channels; ++c) {
      const double delta = mean_b[c] - mean[c];
      mean[c] += delta * share;
      m2[c] += m2_b[c] + delta * delta * share * static_cast<double>(before);
    }
  }
  for (int64_t c = 0; c < channels; ++c) {
    moments[2 * c] = mean[c];
    moments[2 * c + 1] = m2[c] / static_cast<double>(pixels);
  }
}

// What a pixel needs: (x - center) * scale + shift, three vectors of [channels]. The center is a float, and
// its rounding goes into the shift: a large mean costs no precision.
void fold(const NormCall& call, const double* moments, float* center) {
  const int64_t channels = call.x.channels, size = channels / call.groups;
  float *scale = center + channels, *shift = scale + channels;
  for (int64_t g = 0; g < channels; g += size) {
    double mean = 0, variance = 0;
    for (int64_t c = g; c < g + size; ++c) mean += moments[2 * c];
    mean /= static_cast<double>(size);
    for (int64_t c = g; c < g + size; ++c) {
      const double delta = moments[2 * c] - mean;
      variance += moments[2 * c + 1] + delta * delta;
    }
    variance /= static_cast<double>(size);
    const double inverse = 1.0 / __builtin_sqrt(variance + call.epsilon);
    for (int64_t c = g; c < g + size; ++c) {
      const double factor = call.epilogue.scale == nullptr ? inverse : call.epilogue.scale[c] * inverse;
      const double added = call.epilogue.shift == nullptr ? 0 : call.epilogue.shift[c];
      center[c] = static_cast<float>(mean);
      scale[c] = static_cast<float>(factor);
      shift[c] = static_cast<float>(added - (mean - static_cast<double>(center[c])) * factor);
    }
  }
}

// `vecs` vectors of channels, whose terms stay in registers, of each pixel; the last has `lanes` lanes.
template <int vecs, class T>
FASTNETS_INLINE void apply_vectors(const NormCall& call, const float* center, const T* x, const T* residual,
                                   T* y, int64_t pixels, int lanes) {
  const int64_t channels = call.x.channels, r_step = call.epilogue.residual_stride[3];
  const Clamp clamp(call.epilogue);
  Vec middle[vecs], scale[vecs], shift[vecs];
  const auto lanes_of = [&](int v) { return v + 1 < vecs ? Vec::width : lanes; };
  const auto load = [&](const auto* p, int v) { return load_lanes(p + v * Vec::width, lanes_of(v)); };
  for (int v = 0; v < vecs; ++v) {
    middle[v] = load(center, v);
    scale[v] = load(center + channels, v);
    shift[v] = load(center + 2 * channels, v);
  }
  for (int64_t i = 0; i < pixels; ++i, x += call.x.stride[3], y += call.y.stride[3]) {
    for (int v = 0; v < vecs; ++v) {
      Vec value = fma(load(x, v) - middle[v], scale[v], shift[v]);
      if (residual != nullptr) value = value + load(residual + i * r_step, v);
      store_lanes(clamp(value), y + v * Vec::width, lanes_of(v));
    }
  }
}

template <class T>
void apply_pixels(const NormCall& call, const float* center, const T* x, const T* residual, T* y,
                  int64_t pixels) {
  constexpr int64_t many = kVecs * Vec::width;
  const int64_t channels = call.x.channels;
  const auto rest = [&](int64_t c) { return residual == nullptr ? nullptr : residual + c; };
  int64_t c = 0;
  for (; c + many <= channels; c += many) {
    apply_vectors<kVecs>(call, center + c, x + c, rest(c), y + c, pixels, Vec::width);
  }
  for (; c < channels; c += Vec::width) {
    apply_vectors<1>(call, center + c, x + c, rest(c), y + c, pixels, lanes_at(c, channels));
  }
  if (call.epilogue.activation > Activation::clamp) {
    activate_pixels(y, pixels, call.y.stride[3], channels, call.epilogue);
  }
}

// Pixels are taken so many at a time that their vectors of channels stay in L1 from one to the next.
template <class T>
void apply_row(const NormCall& call, const float* tables, int64_t n, int64_t z, int64_t y) {
  constexpr int64_t chunk = 16;
  const T *x = row_of<T>(call.x, n, z, y), *residual = residual_row<T>(call.epilogue, n, z, y);
  T* out = row_of<T>(call.y, n, z, y);
  const float* mine =
      tables + (call.moments_stride == 0 && call.moments != nullptr ? 0 : n * 3 * call.x.channels);
  for (int64_t i = 0; i < call.x.size[2]; i += chunk) {
    const int64_t pixels = call.x.size[2] - i < chunk ? call.x.size[2] - i : chunk;
    apply_pixels(call, mine, x + i * call.x.stride[3],
                 residual == nullptr ? nullptr : residual + i * call.epilogue.residual_stride[3],
                 out + i * call.y.stride[3], pixels);
  }
}

FASTNETS_INLINE int64_t parts_doubles(const ConstAnyPixels& x) {
  return x.batch * blocks_of(x) * 2 * x.channels;
}

void all_blocks(const ConstAnyPixels& x, double* parts, ThreadContext& context) {
  const int64_t blocks = blocks_of(x);
  for (int64_t i; next_item(context, x.batch * blocks, i);) {
    double* part = parts + i * 2 * x.channels;
    with_element(x.element,
                 [&](auto zero) { block_moments<decltype(zero)>(x, i / blocks, i % blocks, part); });
  }
  finish(context);
}

}  // namespace
}  // namespace FASTNETS_LEVEL

int64_t FASTNETS_ENTRY(moments_scratch)(const MomentsCall& call) {
  using namespace FASTNETS_LEVEL;
  return parts_doubles(with_long_rows(call.x)) * static_cast<int64_t>(sizeof(double));
}

void FASTNETS_ENTRY(moments)(const MomentsCall& call, void* scratch, ThreadContext& context) {
  using namespace FASTNETS_LEVEL;
  const ConstAnyPixels x = with_long_rows(call.x);
  auto* parts = static_cast<double*>(scratch);
  all_blocks(x, parts, context);
  for (int64_t n; next_item(context, x.batch, n);) {
    join_blocks(x, parts + n * blocks_of(x) * 2 * x.channels, call.moments + n * 2 * x.channels);
  }
  finish(context);
}

int64_t FASTNETS_ENTRY(norm_scratch)(const NormCall& call) {
  using namespace FASTNETS_LEVEL;
  const int64_t own = call.moments == nullptr ? parts_doubles(with_long_rows(call.x)) : 0;
  const int64_t doubles = own + call.x.batch * call.x.channels * 2;
  return doubles * static_cast<int64_t>(sizeof(double)) +
         call.x.batch * call.x.channels * 3 * static_cast<int64_t>(sizeof(float));
}

void FASTNETS_ENTRY(norm)(const NormCall& call, void* scratch, ThreadContext& context) {
  using namespace FASTNETS_LEVEL;
  const ConstAnyPixels x = with_long_rows(call.x);
  const int64_t channels = x.channels,
                images = call.moments != nullptr && call.moments_stride == 0 ? 1 : x.batch;
  auto* moments = static_cast<double*>(scratch);
  double* parts = moments + x.batch * channels * 2;
  auto* tables = reinterpret_cast<float*>(parts + (call.moments == nullptr ? parts_doubles(x) : 0));
  if (call.moments == nullptr) all_blocks(x, parts, context);
  for (int64_t n; next_item(context, images, n);) {
    double* own = moments + n * channels * 2;
    if (call.moments == nullptr) join_blocks(x, parts + n * blocks_of(x) * 2 * channels, own);
    fold(call, call.moments == nullptr ? own : call.moments + n * call.moments_stride,
         tables + n * 3 * channels);
  }
  finish(context);
  const int64_t height = call.y.size[1], depth = call.y.size[0];
  for (int64_t i; next_item(context, x.batch * depth * height, i);) {
    const int64_t image = i / (depth * height), z = i / height % depth;
    with_element(x.element,
                 [&](auto zero) { apply_row<decltype(zero)>(call, tables, image, z, i % height); });
  }
  finish(context);
}

}  // namespace fastnets
