#include "common/conv_pack.h"

#include <algorithm>

#include "cpu/conv.h"

namespace fastnets {
namespace {

constexpr int kMostPoints = 8, kMostTaps = 7;

// G of Y = A^T ((G g) * (B^T d)) along an axis: a row a point, from the taps of the kernel.
struct KernelTransform {
  int points = 1, taps = 1;
  double rows[kMostPoints][kMostTaps] = {{1}};
};

// Of `tile` outputs: the kernel's polynomial at 0, 1, -1, 2, -2, 1/2, -1/2 and infinity, as many as it needs;
// at 1/2 and -1/2 times a power of 2, which is the polynomial backwards. With six points, they are times
// kSixStep. All of them by what A^T would divide 1 and -1 by; it has the rest (winograd_axes.h).
// kept: the taps themselves.
KernelTransform kernel_transform(int tile, int64_t taps, bool kept = false) {
  if (tile == 1) return {};
  // Stride 2: F(3, 2) of the outer taps, and the middle tap for each of the three odd inputs.
  if (tile == 3 && taps == 3) {
    return {7, 3, {{1, 0, 0}, {0.5, 0, 0.5}, {0.5, 0, -0.5}, {0, 0, 1}, {0, 1, 0}, {0, 1, 0}, {0, 1, 0}}};
  }
  KernelTransform t{tile + static_cast<int>(taps) - 1, static_cast<int>(taps), {}};
  const bool six = t.points == 6;
  const double step = six ? kSixStep : 1, fourth = step * step * step * step;
  double factor[kMostTaps] = {t.points == 4 ? 1.0 / 2 : six ? -1 / (6 * fourth) : -2.0 / 9};  // of each tap
  for (int k = 1; k < t.taps; ++k) factor[k] = factor[k - 1] * step;
  if (kept) {
    t.points = t.taps;
    for (int k = 0; k < t.taps; ++k) t.rows[k][k] = factor[k];
    return t;
  }
  constexpr double kPoint[kMostPoints] = {0, 1, -1, 2, -2, 2, -2};
  for (int p = 0; p < t.points; ++p) {
    double power = 1;
    for (int k = 0; k < t.taps; ++k, power *= kPoint[p]) {
      const bool backwards = p == 5 || p == 6;
      t.rows[p][backwards ? t.taps - 1 - k : k] = power * factor[k];
    }
  }
  for (int k = 0; k < t.taps; ++k) t.rows[t.points - 1][k] = k == t.taps - 1 ? factor[k] : 0;
  return t;
}

// The panels of one group, and where each lies.
struct Panels {
  int64_t outputs, lanes, count;
  Panels(const ConvWeights& w, int vector_lanes)
      : outputs(w.cout / w.groups),
        lanes(int64_t{kPanelVectors} * vector_lanes),
        count((outputs + lanes - 1) / lanes),
        padded_((outputs + vector_lanes - 1) / vector_lanes * vector_lanes) {}
  int64_t width(int64_t panel) const { return std::min(lanes, padded_ - panel * lanes); }
  int64_t padded() const { return padded_; }

 private:
  int64_t padded_;
};

// to[point, ...] = sum over taps of G[point][tap] * from[tap, ...], with `inner` elements a step.
void apply(const KernelTransform& t, const double* from, double* to, int64_t outer, int64_t inner) {
  for (int64_t o = 0; o < outer; ++o) {
    for (int p = 0; p < t.points; ++p) {
      for (int64_t i = 0; i < inner; ++i) {
        double sum = 0;
        for (int k = 0; k < t.taps; ++k) sum += t.rows[p][k] * from[(o * t.taps + k) * inner + i];
        to[(o * t.points + p) * inner + i] = sum;
      }
    }
  }
}

int64_t padded_depth(const ConvWeights& w, int multiple) {
  const int64_t depth = w.cin * w.kernel[0] * w.kernel[1] * w.kernel[2];
  return (depth + multiple - 1) / multiple * multiple;
}

template <class T>
void pack_product_of(const ConvWeights& w, const ProductPacking& packing, T* packed, ThreadContext& context) {
  const Panels panels(w, packing.lanes);
  const int steps = packing.steps;
  const int64_t taps = w.kernel[0] * w.kernel[1] * w.kernel[2], depth = taps * w.cin;
  const int64_t padded = padded_depth(w, packing.depth);
  for (int64_t item; next_item(context, w.groups * panels.count, item);) {
    const int64_t group = item / panels.count, panel = item % panels.count, width = panels.width(panel);
    T* out = packed + (group * panels.padded() + panel * panels.lanes) * padded;
    for (int64_t lane = 0; lane < width; ++lane) {
      const int64_t channel = panel * panels.lanes + lane;
      const T* source = static_cast<const T*>(w.values) + (group * panels.outputs + channel) * depth;
      const auto place = [&](int64_t k) -> T& {  // steps is a power of 2
        return out[(k & -steps) * width + lane * steps + (k & (steps - 1))];
      };
      for (int64_t tap = 0; tap < taps; ++tap) {
        for (int64_t c = 0; c < w.cin; ++c) {
          place(tap * w.cin + c) = channel < panels.outputs ? source[c * taps + tap] : T{};
        }
      }
      for (int64_t k = depth; k < padded; ++k) place(k) = T{};
    }
  }
}

template <class T>
void pack_direct_of(const ConvWeights& w, const ProductPacking& packing, T* packed, ThreadContext& context) {
  const Panels panels(w, packing.lanes);
  const int64_t taps = w.kernel[0] * w.kernel[1] * w.kernel[2], steps = packing.steps, depth = packing.depth;
  // A joined tap is a line of the kernel, and its inputs the taps of that.
  const bool joins = joins_taps(w.cin, w.kernel[2]);
  const int64_t line = joins ? w.kernel[2] : 1, inputs = line * w.cin;
  const int64_t rows = packed_direct_elements(w, packing) / (w.groups * panels.padded());
  for (int64_t item; next_item(context, w.groups * panels.count, item);) {
    const int64_t group = item / panels.count, panel = item % panels.count, width = panels.width(panel);
    T* out = packed + (group * panels.padded() + panel * panels.lanes) * rows;
    const T* const values = static_cast<const T*>(w.values) + group * panels.outputs * w.cin * taps;
    for (int64_t block = 0; block < inputs; block += depth) {
      for (int64_t tap = 0; tap < taps / line; ++tap) {
        for (int64_t row = block; row < block + depth; row += steps) {
          for (int64_t lane = 0; lane < width; ++lane) {
            for (int64_t c = row; c < row + steps; ++c) {
              const int64_t channel = panel * panels.lanes + lane;
              const bool there = channel < panels.outputs && c < inputs;
              const int64_t from = (channel * w.cin + c % w.cin) * taps + tap * line + c / w.cin;
              *out++ = there ? values[from] : T{};
            }
          }
        }
      }
    }
  }
}

template <class T>
void pack_grouped_of(const ConvWeights& w, int lanes, float* packed, ThreadContext& context) {
  const int64_t taps = w.kernel[0] * w.kernel[1] * w.kernel[2];
  for (int64_t v; next_item(context, (w.cout + lanes - 1) / lanes, v);) {
    float* out = packed + v * lanes * taps * w.cin;
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const int64_t channel = v * lanes + lane;
      for (int64_t i = 0; i < taps * w.cin; ++i) {  // i = tap * cin + c
        const int64_t from = (channel * w.cin + i % w.cin) * taps + i / w.cin;
        out[i * lanes + lane] = channel < w.cout ? value_of(static_cast<const T*>(w.values)[from]) : 0.0F;
      }
    }
  }
}

}  // namespace

int64_t packed_product_elements(const ConvWeights& w, const ProductPacking& packing) {
  return w.groups * Panels(w, packing.lanes).padded() * padded_depth(w, packing.depth);
}

void pack_product(const ConvWeights& w, const ProductPacking& packing, void* packed, ThreadContext& context) {
  with_element(w.element, [&](auto zero) {
    pack_product_of(w, packing, static_cast<decltype(zero)*>(packed), context);
  });
  finish(context);
}

int64_t packed_direct_elements(const ConvWeights& w, const ProductPacking& packing) {
  const bool joins = joins_taps(w.cin, w.kernel[2]);
  const int64_t inputs = joins ? w.cin * w.kernel[2] : w.cin;
  const int64_t depth = (inputs + packing.depth - 1) / packing.depth * packing.depth;
  return w.groups * Panels(w, packing.lanes).padded() * depth * w.kernel[0] * w.kernel[1] *
         (joins ? 1 : w.kernel[2]);
}

void pack_direct(const ConvWeights& w, const ProductPacking& packing, void* packed, ThreadContext& context) {
  with_element(w.element,
               [&](auto zero) { pack_direct_of(w, packing, static_cast<decltype(zero)*>(packed), context); });
  finish(context);
}

int64_t packed_winograd_elements(const ConvWeights& w, const int tile[3], bool taps, int lanes) {
  int64_t points = 1;
  for (int axis = 0; axis < 3; ++axis) {
    points *= kernel_transform(tile[axis], w.kernel[axis], taps && axis == 2).points;
  }
  return w.groups * Panels(w, lanes).padded() * w.cin * points;
}

void pack_winograd(const ConvWeights& w, const int tile[3], bool taps, int lanes, float* packed,
                   ThreadContext& context) {
  const Panels panels(w, lanes);
  const KernelTransform z = kernel_transform(tile[0], w.kernel[0]),
                        y = kernel_transform(tile[1], w.kernel[1]),
                        x = kernel_transform(tile[2], w.kernel[2], taps);
  const int64_t of_channel = z.taps * y.taps * x.taps, points = z.points * y.points * x.points;
  constexpr int kMost = kMostPoints * kMostPoints * kMostPoints;
  for (int64_t item; next_item(context, w.groups * panels.count, item);) {
    const int64_t group = item / panels.count, panel = item % panels.count, width = panels.width(panel);
    float* out = packed + (group * panels.padded() + panel * panels.lanes) * w.cin * points;
    for (int64_t c = 0; c < w.cin; ++c) {
      for (int64_t lane = 0; lane < width; ++lane) {
        const int64_t channel = panel * panels.lanes + lane;
        double given[kMost] = {}, first[kMost], second[kMost], third[kMost];
        if (channel < panels.outputs) {
          const float* source = static_cast<const float*>(w.values) +
                                ((group * panels.outputs + channel) * w.cin + c) * of_channel;
          std::copy(source, source + of_channel, given);
        }
        apply(z, given, first, 1, y.taps * x.taps);
        apply(y, first, second, z.points, x.taps);
        apply(x, second, third, z.points * y.points, 1);
        const int64_t block = c / kTapsDepth * kTapsDepth, depth = std::min(kTapsDepth, w.cin - block);
        for (int64_t xi = 0; xi < points; ++xi) {
          const int64_t line = xi / x.points * x.points, tap = xi % x.points;
          const int64_t row =
              taps ? line * w.cin + x.points * block + tap * depth + c - block : xi * w.cin + c;
          out[row * width + lane] = static_cast<float>(third[xi]);
        }
      }
    }
  }
  finish(context);
}

int64_t packed_grouped_elements(const ConvWeights& w, int lanes) {
  return (w.cout + lanes - 1) / lanes * lanes * w.cin * w.kernel[0] * w.kernel[1] * w.kernel[2];
}

void pack_grouped(const ConvWeights& w, int lanes, float* packed, ThreadContext& context) {
  with_element(w.element, [&](auto zero) { pack_grouped_of<decltype(zero)>(w, lanes, packed, context); });
  finish(context);
}

}  // namespace fastnets
