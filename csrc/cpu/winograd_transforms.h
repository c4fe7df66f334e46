// The transforms of Winograd's convolution over a tile of up to three axes: from pixels to V, and from
// products through the epilogue to pixels. Included by conv_winograd.cpp only.
#pragma once

#include "cpu/activation.h"
#include "cpu/winograd_axes.h"

namespace fastnets {
namespace FASTNETS_LEVEL {

// Pixels of the input that a tile reads, and of the one after it, which are fetched while this one is
// computed.
template <class T>
struct TileSource {
  const T* const* pixel;  // [points of z][of y][of x]: first channel; outside of the input, zeros
  const T* const* next;   // the same for the next tile, or null
  int64_t channels;
  int known;  // the first columns, which the tile before has read too
};

// The same channels of the next tile, or nothing.
template <class T>
struct Ahead {
  const T* const* pixel;
  int64_t channel;

  // Fetches one pixel of each of kLines lines that are `stride` apart, into L2: L1 loses them before they are
  // used, as rows are often a multiple of 4 KiB apart (56 pixels of 64 channels, 512 of 128). Layers ran 5 to
  // 18 % slower by that. Between the lines of a transform: all at once, before the transform, they wait for
  // each other. 3D networks took 1.04 to 1.08 of the time by that, and 2D ones 1.01 to 1.03 (Zen 5). Fetched
  // for the next item between the products of this one, layers took 0.99 to 1.04 (Emerald Rapids).
  template <int kLines>
  FASTNETS_INLINE void fetch(int i, int stride) const {
    if (pixel == nullptr) return;
#pragma GCC unroll 8
    for (int line = 0; line < kLines; ++line) __builtin_prefetch(pixel[line * stride + i] + channel, 0, 2);
  }
};

// A column of a plane.
template <class V>
struct ColumnOf {
  const V* at;
  int stride;
  FASTNETS_INLINE V operator[](int y) const { return at[y * stride]; }
};

// v[xi * xi_stride] = the transform of a plane along y and x. Two rows at a time, of a pair of points, so
// that what lies between the axes stays in registers: tiles of 6x6x6 took 0.8 of the time (Zen 5). Beside
// that, keeping the columns that the tile before has transformed took 1.0 to 1.3: it waits for what it
// fetches.
template <int kPy, int kPx, class V>
FASTNETS_INLINE void transform_plane(const V* plane, float* v, int64_t xi_stride) {
  const auto store_row = [&](V* line, int row) FASTNETS_INLINE_LAMBDA {
    Points<kPx>::input(line);
#pragma GCC unroll 8
    for (int x = 0; x < kPx; ++x) line[x].store(v + (row * kPx + x) * xi_stride);
  };
  const auto column = [&](int x) FASTNETS_INLINE_LAMBDA { return ColumnOf<V>{plane + x, kPx}; };
  {
    V first[kPx];
#pragma GCC unroll 8
    for (int x = 0; x < kPx; ++x) first[x] = Points<kPy>::template zero<V>(column(x));
    store_row(first, 0);
  }
#pragma GCC unroll 3
  for (int pair = 0; pair < Points<kPy>::kPairs; ++pair) {
    V plus[kPx], minus[kPx];
#pragma GCC unroll 8
    for (int x = 0; x < kPx; ++x) Points<kPy>::template pair<V>(pair, column(x), plus[x], minus[x]);
    store_row(plus, 1 + 2 * pair);
    store_row(minus, 2 + 2 * pair);
  }
  V last[kPx];
#pragma GCC unroll 8
  for (int x = 0; x < kPx; ++x) last[x] = Points<kPy>::template infinity<V>(column(x));
  store_row(last, kPy - 1);
}

// `lanes` channels of every step-th pixel. With masks for whole vectors, VGG-16 took 1.02 to 1.03 of the
// time (fp32, Zen 5).
template <int kCount, class V, class T>
FASTNETS_INLINE void load_line(V* line, const T* const* pixel, int64_t step, int64_t channel, int lanes) {
  if (lanes == V::width) {
#pragma GCC unroll 8
    for (int i = 0; i < kCount; ++i) line[i] = V::load(pixel[i * step] + channel);
  } else {
#pragma GCC unroll 8
    for (int i = 0; i < kCount; ++i) line[i] = V::load(pixel[i * step] + channel, lanes);
  }
}

// v[xi * xi_stride] = the transformed tile, for `lanes` channels from c on.
template <int kPz, int kPy, int kPx, class V, class T>
FASTNETS_INLINE void transform_channels(const TileSource<T>& source, int64_t c, int lanes, float* v,
                                        int64_t xi_stride, const Ahead<T>& ahead) {
  constexpr int kPlane = kPy * kPx;
  alignas(64) V tile[kPz * kPlane];
  if (kPz > 1) {
    for (int i = 0; i < kPlane; ++i) {
      V line[kPz];
      if (i % kPx >= source.known) ahead.template fetch<kPz>(i, kPlane);
      load_line<kPz>(line, source.pixel + i, kPlane, c, lanes);
      Points<kPz>::input(line);
#pragma GCC unroll 8
      for (int z = 0; z < kPz; ++z) tile[z * kPlane + i] = line[z];
    }
  }
  if constexpr (kPz > 1) {
    for (int z = 0; z < kPz; ++z) {
      transform_plane<kPy, kPx>(tile + z * kPlane, v + z * kPlane * xi_stride, xi_stride);
    }
  } else {
    for (int x = 0; x < kPx; ++x) {
      V line[kPy];
      if (x >= source.known) ahead.template fetch<kPy>(x, kPx);
      load_line<kPy>(line, source.pixel + x, kPx, c, lanes);
      Points<kPy>::input(line);
#pragma GCC unroll 8
      for (int y = 0; y < kPy; ++y) tile[y * kPx + x] = line[y];
    }
    for (int y = 0; y < kPy; ++y) {
      V line[kPx];
#pragma GCC unroll 8
      for (int x = 0; x < kPx; ++x) line[x] = tile[y * kPx + x];
      Points<kPx>::input(line);
#pragma GCC unroll 8
      for (int x = 0; x < kPx; ++x) line[x].store(v + (y * kPx + x) * xi_stride);
    }
  }
}

// v[channel block * block_stride + xi * xi_stride] = the transformed tile, Vec::width channels a block.
template <int kPz, int kPy, int kPx, class T>
__attribute__((noinline)) void transform_input(const TileSource<T>& source, float* v, int64_t xi_stride,
                                               int64_t block_stride) {
  for (int64_t c = 0; c < source.channels; c += Vec::width, v += block_stride) {
    const int lanes = static_cast<int>(least(Vec::width, source.channels - c));
    const Ahead<T> ahead{source.next, c};
    if (lanes > Half::width) {
      transform_channels<kPz, kPy, kPx, Vec>(source, c, lanes, v, xi_stride, ahead);
    } else {
      transform_channels<kPz, kPy, kPx, Half>(source, c, lanes, v, xi_stride, ahead);
    }
  }
}

// Where the outputs of a tile go: output (i, j, k) of `size` is at y + i stride[0] + j stride[1] + k
// stride[2].
template <class T>
struct TileTarget {
  T* y;  // or null, with maxima
  int64_t stride[3];
  T* maxima;  // null, or those of windows of 2 outputs along each axis of more than 1
  int64_t maxima_stride[3];
  const T* residual;  // or null
  int64_t residual_stride[3];
  // What the next tile of the panel writes, or null, and the residual that it reads: fetched while this one
  // is computed, line by line, as caches wait for some 24 lines at a time.
  const T *next_y, *next_residual;
  int64_t from[3], size[3];  // outputs of the tile from .. size are: not all of them at the ends of an axis
  const float* border;       // null, or ConvCall's, where the tile has a first or last position
  int64_t border_stride[3];
  int edge[3], side[3];  // the output at such a position, and whether it is the first (0) or the last (2)
  int64_t channel, lanes;
  bool stream, stream_maxima;
  float* moments;  // null, or where those of the tile's outputs go: [3][channels], as TileMoments has them
  int64_t channels;
};

// Of the outputs of a tile: the first one, their mean less that, and the sum of squared deviations from the
// mean. Lines are joined by the formula of Chan, Golub and LeVeque (1979): sums of squared differences from
// the first output lost 100 units of the last place where that was an outlier.
template <class V>
struct TileMoments {
  V first, mean, squares;
  float count;

  // The first n of a line of kX.
  template <int kX>
  FASTNETS_INLINE void add(const V* line, int64_t n) {
    if (count == 0.0F) first = line[0];
    const float outputs = static_cast<float>(n), share = outputs / (count + outputs);
    V sum = V::set(0.0F);
#pragma GCC unroll 8
    for (int x = 0; x < kX; ++x) {
      if (x < n) sum = sum + (line[x] - first);
    }
    const V own = sum * V::set(1.0F / outputs), delta = own - mean;
#pragma GCC unroll 8
    for (int x = 0; x < kX; ++x) {
      const V d = (line[x] - first) - own;
      if (x < n) squares = fma(d, d, squares);
    }
    mean = fma(delta, V::set(share), mean);
    squares = fma(delta * delta, V::set(share * count), squares);
    count += outputs;
  }
  template <class T>
  FASTNETS_INLINE void store(const TileTarget<T>& t, int64_t channel, int lanes) const {
    first.store(t.moments + channel, lanes);
    mean.store(t.moments + t.channels + channel, lanes);
    squares.store(t.moments + 2 * t.channels + channel, lanes);
  }
};

// The maxima of a tile's windows of 2 along each axis.
template <int kZ, int kY, int kX, class V>
struct TileMaxima {
  V window[kZ > 1 ? (kY + 1) / 2 * ((kX + 1) / 2) : 1];  // of the planes z - 1 before each odd one

  // The plane z of results, rows of kX.
  template <class T>
  FASTNETS_INLINE void add(const V* plane, const TileTarget<T>& t, int64_t z, int64_t channel, int lanes) {
    constexpr int kTall = kY > 1 ? 2 : 1;
    const bool last = kZ == 1 || z % 2 == 1;
#pragma GCC unroll 4
    for (int y = 0; y < kY / kTall; ++y) {
      T* const to = t.maxima + z / 2 * t.maxima_stride[0] + y * t.maxima_stride[1] + channel;
#pragma GCC unroll 4
      for (int x = 0; x < kX / 2; ++x) {
        const V* const from = plane + y * kTall * kX + 2 * x;
        V most = max_or_nan(from[0], from[1]);
        if (kTall == 2) most = max_or_nan(most, max_or_nan(from[kX], from[kX + 1]));
        if (kZ > 1) {
          V& before = window[y * (kX / 2) + x];
          if (last) most = max_or_nan(before, most);
          before = most;
        }
        if (!last || kTall * y + kTall > t.size[1] || 2 * x + 1 >= t.size[2]) continue;
        T* const at = to + x * t.maxima_stride[2];
        t.stream_maxima ? most.stream(at) : store_lanes(most, at, lanes);
      }
    }
  }
};

// Of a transposed convolution, at the ends of an axis.
template <int kX, class V, class T>
FASTNETS_INLINE void add_border(V* line, const TileTarget<T>& t, int64_t z, int64_t y, int64_t channel,
                                int lanes) {
  const auto side = [&](int axis, int64_t i) {
    return (i == t.edge[axis] ? t.side[axis] : 1) * t.border_stride[axis];
  };
  const float* const from = t.border + side(0, z) + side(1, y) + channel;
  for (int x = 0; x < kX; ++x) line[x] = line[x] + V::load(from + side(2, x), lanes);
}

// Scale and shift of channels, and what Axis::kSteps leaves to multiply by, which so costs nothing.
template <class Z, class Y, class X, class V>
struct OutputTerms {
  V scale[Z::kSteps * (Z::kOutputs - 1) + Y::kSteps * (Y::kOutputs - 1) + X::kSteps * (X::kOutputs - 1) + 1];
  V shift;
  FASTNETS_INLINE OutputTerms(const Epilogue& epilogue, int64_t channel, int lanes) {
    const ChannelTermsOf<V> terms(epilogue, channel, lanes);
    shift = terms.shift, scale[0] = terms.scale;
#pragma GCC unroll 16
    for (size_t i = 1; i < sizeof(scale) / sizeof(V); ++i) {
      scale[i] = times(static_cast<float>(power(kSixStep, static_cast<int>(i))), terms.scale);
    }
  }
  // Of row (z, y).
  FASTNETS_INLINE void apply(V* line, int64_t z, int64_t y) const {
    const V* const first = scale + Z::kSteps * z + Y::kSteps * y;
#pragma GCC unroll 8
    for (int x = 0; x < X::kOutputs; ++x) line[x] = fma(line[x], first[X::kSteps * x], shift);
  }
};

// One row of outputs along x through the rest of the epilogue, in registers.
template <int kX, class V, class T>
FASTNETS_INLINE void finish_line(V* line, const TileTarget<T>& t, int64_t z, int64_t y, int64_t channel,
                                 int lanes, const ClampOf<V>& clamp) {
  if (t.border != nullptr) add_border<kX>(line, t, z, y, channel, lanes);
  if (t.residual != nullptr) {
    const T* const from = t.residual + z * t.residual_stride[0] + y * t.residual_stride[1] + channel;
#pragma GCC unroll 8
    for (int x = 0; x < kX; ++x) {
      if (x < t.from[2] || x >= t.size[2]) continue;
      const T* const pixel = from + x * t.residual_stride[2];
      line[x] = line[x] + load_lanes<V>(pixel, lanes);
    }
  }
#pragma GCC unroll 8
  for (int x = 0; x < kX; ++x) line[x] = clamp(line[x]);
}

template <int kX, class V, class T>
FASTNETS_INLINE void store_line(const V* line, const TileTarget<T>& t, int64_t z, int64_t y, int64_t channel,
                                int lanes) {
  T* const to = t.y + z * t.stride[0] + y * t.stride[1] + channel;
  const bool whole = t.size[2] - t.from[2] == kX;
  if (whole && t.stream) {
#pragma GCC unroll 8
    for (int x = 0; x < kX; ++x) line[x].stream(to + x * t.stride[2]);
  } else if (whole && lanes == V::width) {
#pragma GCC unroll 8
    for (int x = 0; x < kX; ++x) line[x].store(to + x * t.stride[2]);
  } else if (whole) {
#pragma GCC unroll 8
    for (int x = 0; x < kX; ++x) line[x].store(to + x * t.stride[2], lanes);
  } else {
#pragma GCC unroll 8
    for (int x = 0; x < kX; ++x) {
      if (x >= t.from[2] && x < t.size[2])
        t.stream ? line[x].stream(to + x * t.stride[2]) : line[x].store(to + x * t.stride[2], lanes);
    }
  }
}

// The row of outputs along x, or of residuals, that begins at `start`: of the next tile.
template <int kWrite, int kX, class T>
FASTNETS_INLINE void fetch_line(const T* start, const int64_t* stride, int64_t z, int64_t y,
                                int64_t channel) {
  constexpr auto kBytes = static_cast<int64_t>(sizeof(T));
  constexpr bool kPart = Vec::width * kBytes < kAlignment;  // several vectors share a line: one fetches it
  if (start == nullptr || (kPart && channel * kBytes % kAlignment != 0)) return;
  const T* const line = start + z * stride[0] + y * stride[1] + channel;
#pragma GCC unroll 8
  for (int x = 0; x < kX; ++x) __builtin_prefetch(line + x * stride[2], kWrite, 2);
}

// `lanes` channels of a tile: m[xi * xi_stride] and on are their products.
template <class Z, class Y, class X, class V, class T>
FASTNETS_INLINE void transform_products(const float* m, int64_t xi_stride, const TileTarget<T>& t,
                                        int64_t channel, int lanes, const Epilogue& epilogue) {
  constexpr int kPz = Z::kPoints, kPy = Y::kPoints, kPx = X::kPoints, kPlane = kPy * kPx;
  constexpr int kZ = Z::kOutputs, kY = Y::kOutputs, kX = X::kOutputs;
  const ClampOf<V> clamp(epilogue);
  const OutputTerms<Z, Y, X, V> terms(epilogue, channel, lanes);
  TileMoments<V> moments{};
  TileMaxima<kZ, kY, kX, V> maxima;
  alignas(64) V tile[kPz > 1 ? kZ * kPlane : 1];
  if (kPz > 1) {
    for (int i = 0; i < kPlane; ++i) {
      V line[kPz];
#pragma GCC unroll 8
      for (int z = 0; z < kPz; ++z) line[z] = V::load(m + (z * kPlane + i) * xi_stride);
      Z::output(line);
#pragma GCC unroll 8
      for (int z = 0; z < kZ; ++z) tile[z * kPlane + i] = line[z];
    }
  }
  for (int64_t z = t.from[0]; z < t.size[0]; ++z) {
    alignas(64) V plane[kY * kPx], results[kY * kX];
    for (int x = 0; x < kPx; ++x) {
      V line[kPy];
#pragma GCC unroll 8
      for (int y = 0; y < kPy; ++y) {
        const int i = y * kPx + x;
        line[y] = kPz > 1 ? tile[z * kPlane + i] : V::load(m + i * xi_stride);
      }
      Y::output(line);
#pragma GCC unroll 8
      for (int y = 0; y < kY; ++y) plane[y * kPx + x] = line[y];
    }
    for (int64_t y = t.from[1]; y < t.size[1]; ++y) {
      V line[kPx];
#pragma GCC unroll 8
      for (int x = 0; x < kPx; ++x) line[x] = plane[y * kPx + x];
      X::output(line);
      fetch_line<1, kX>(t.next_y, t.stride, z, y, channel);
      fetch_line<0, kX>(t.next_residual, t.residual_stride, z, y, channel);
      terms.apply(line, z, y);
      finish_line<kX>(line, t, z, y, channel, lanes, clamp);
      if (t.y != nullptr) store_line<kX>(line, t, z, y, channel, lanes);
      if (t.maxima != nullptr) {
#pragma GCC unroll 8
        for (int x = 0; x < kX; ++x) results[y * kX + x] = line[x];
      }
      if (t.moments != nullptr) moments.template add<kX>(line, t.size[2]);
    }
    if (t.maxima != nullptr) maxima.add(results, t, z, channel, lanes);
  }
  if (t.moments != nullptr) moments.store(t, channel, lanes);
}

// m[xi * xi_stride + lane]: the products of a tile with a panel, of which t.lanes are channels.
template <class Z, class Y, class X, class T>
__attribute__((noinline)) void transform_output(const float* m, int64_t xi_stride, const TileTarget<T>& t,
                                                const Epilogue& epilogue) {
  for (int64_t done = 0; done < t.lanes; done += Vec::width, m += Vec::width) {
    const int lanes = static_cast<int>(least(Vec::width, t.lanes - done));
    if (lanes > Half::width) {
      transform_products<Z, Y, X, Vec>(m, xi_stride, t, t.channel + done, lanes, epilogue);
    } else {
      transform_products<Z, Y, X, Half>(m, xi_stride, t, t.channel + done, lanes, epilogue);
    }
  }
}

// A kind of tile: the taps, outputs, points and inputs to the next tile along each axis, and its transforms
// from and to elements T.
template <class T>
struct TileKind {
  int taps, outputs[3], points[3], advance[3];
  void (*input)(const TileSource<T>&, float*, int64_t, int64_t);
  void (*output)(const float*, int64_t, const TileTarget<T>&, const Epilogue&);
};

template <int kTaps, class Z, class Y, class X, class T>
constexpr TileKind<T> tile_of() {
  return {kTaps,
          {Z::kOutputs, Y::kOutputs, X::kOutputs},
          {Z::kPoints, Y::kPoints, X::kPoints},
          {Z::kAdvance, Y::kAdvance, X::kAdvance},
          transform_input<Z::kPoints, Y::kPoints, X::kPoints, T>,
          transform_output<Z, Y, X, T>};
}

#define FASTNETS_LINES(taps, x) tile_of<taps, Axis<1, 1>, Axis<1, 1>, Axis<x, taps>, T>()
#define FASTNETS_PLANES(taps, x) tile_of<taps, Axis<1, 1>, Axis<x, taps>, Axis<x, taps>, T>()
#define FASTNETS_VOLUMES(taps, z, x) tile_of<taps, Axis<z, taps>, Axis<x, taps>, Axis<x, taps>, T>()

// Kernels of 3, 5 or 7 along some axes; 3x1 and others come to these by exchanging axes. Those of 2 are the
// phases of transposed convolutions.
template <class T>
constexpr TileKind<T> kTiles[] = {
    FASTNETS_LINES(3, 2),      FASTNETS_LINES(3, 4),      FASTNETS_LINES(3, 6),
    FASTNETS_LINES(5, 2),      FASTNETS_LINES(5, 4),      FASTNETS_LINES(7, 2),
    FASTNETS_PLANES(3, 2),     FASTNETS_PLANES(3, 3),     FASTNETS_PLANES(3, 4),
    FASTNETS_PLANES(3, 6),     FASTNETS_PLANES(5, 2),     FASTNETS_PLANES(5, 4),
    FASTNETS_PLANES(7, 2),     FASTNETS_VOLUMES(3, 2, 2), FASTNETS_VOLUMES(3, 2, 4),
    FASTNETS_VOLUMES(3, 4, 4), FASTNETS_VOLUMES(3, 6, 4), FASTNETS_VOLUMES(5, 2, 2),
    FASTNETS_PLANES(2, 3),     FASTNETS_PLANES(2, 5),     FASTNETS_PLANES(2, 7),
    FASTNETS_VOLUMES(2, 3, 3), FASTNETS_VOLUMES(2, 5, 5)};

}  // namespace FASTNETS_LEVEL
}  // namespace fastnets
