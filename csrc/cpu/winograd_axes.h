// The transforms of Winograd's convolution Y = A^T ((G g) * (B^T d)) along one axis. Included by
// cpu/winograd_transforms.h only.
//
// F(m, r) makes m outputs with r taps from m + r - 1 inputs, of which as many points are products. Matrices
// after Lavin and Gray (arXiv:1509.09308), factored by the symmetry of the points +p and -p. G is the value
// of the kernel's polynomial at each point (common/conv_pack.cpp), so B^T is the same for all m and r with as
// many points. The denominators are in A^T, but for that of the points 1 and -1, which is in all of G.
#pragma once

#include "common/conv_pack.h"
#include "cpu/vec.h"

namespace fastnets {
namespace FASTNETS_LEVEL {

// V is Vec, or Half for the last channels.
template <class V>
FASTNETS_INLINE V times(float c, V v) {
  return V::set(c) * v;
}
template <class V>
FASTNETS_INLINE V add_times(V sum, float c, V v) {
  return fma(V::set(c), v, sum);
}

// B^T for so many points: 0, pairs of +p and -p, and infinity. What A^T multiplies the products by, besides
// the powers of p: of 0 and infinity, and of each pair.
template <int kCount>
struct Points;

// An axis left as it is.
template <>
struct Points<1> {
  template <class V>
  static FASTNETS_INLINE void input(V*) {}
};

// In place, where each point can be computed by itself: B^T of 0, of pairs and of infinity, which Of has.
template <class Of, int kCount, class V>
FASTNETS_INLINE void transform_line(V* d) {
  const V first = Of::template zero<V>(d), last = Of::template infinity<V>(d);
  V plus[Of::kPairs], minus[Of::kPairs];
#pragma GCC unroll 3
  for (int pair = 0; pair < Of::kPairs; ++pair) Of::template pair<V>(pair, d, plus[pair], minus[pair]);
  d[0] = first, d[kCount - 1] = last;
#pragma GCC unroll 3
  for (int pair = 0; pair < Of::kPairs; ++pair) d[1 + 2 * pair] = plus[pair], d[2 + 2 * pair] = minus[pair];
}

template <>
struct Points<4> {
  static constexpr int kPairs = 1;
  static constexpr double kZero = 2, kInfinity = -2, kPair[] = {1}, kPoint[] = {1};
  template <class V, class D>
  static FASTNETS_INLINE V zero(const D& d) {
    return d[0] - d[2];
  }
  template <class V, class D>
  static FASTNETS_INLINE void pair(int, const D& d, V& plus, V& minus) {
    const V d1 = d[1], d2 = d[2];
    plus = d1 + d2, minus = d2 - d1;
  }
  template <class V, class D>
  static FASTNETS_INLINE V infinity(const D& d) {
    return d[1] - d[3];
  }
  template <class V>
  static FASTNETS_INLINE void input(V* d) {
    transform_line<Points, 4>(d);
  }
};

// At 0, s, -s, 2s, -2s and infinity, s being kStep: the taps that G has are times the powers 0, 1 and on of
// s, and the results that A^T makes are to be (Axis::kSteps). At s = 1, as Lavin and Gray have it, errors are
// twice these in two axes and three times in three, their largest ten times (4x4x4, 128 channels: 2.4e-6, not
// 7.2e-6). That errors depend on the points so much is from Barabasz et al. (arXiv:1803.10986).
template <>
struct Points<6> {
  static constexpr int kPairs = 2;
  static constexpr double kZero = -1.5, kInfinity = -6 / kSixStep, kPair[] = {1, -0.25}, kPoint[] = {1, 2};
  template <class V, class D>
  static FASTNETS_INLINE V zero(const D& d) {
    return add_times(add_times(d[4], -5 * kSquare, d[2]), 4 * kSquare * kSquare, d[0]);
  }
  template <class V, class D>
  static FASTNETS_INLINE void pair(int pair, const D& d, V& plus, V& minus) {
    const float other = pair == 0 ? 4 * kSquare : kSquare, point = pair == 0 ? kStep : 2 * kStep;
    const V even = add_times(d[4], -other, d[2]), odd = add_times(d[3], -other, d[1]);
    plus = add_times(even, point, odd), minus = add_times(even, -point, odd);
  }
  template <class V, class D>
  static FASTNETS_INLINE V infinity(const D& d) {
    return add_times(add_times(d[5], -5 * kSquare, d[3]), 4 * kSquare * kSquare, d[1]);
  }
  template <class V>
  static FASTNETS_INLINE void input(V* d) {
    transform_line<Points, 6>(d);
  }

 private:
  static constexpr auto kStep = static_cast<float>(kSixStep);
  static constexpr float kSquare = kStep * kStep;
};

// Of points of eighths up to 2.5, none has errors less than 0.98 of these.
template <>
struct Points<8> {
  static constexpr int kPairs = 3;
  static constexpr double kZero = -4.5, kInfinity = -4.5, kPair[] = {1, -0.05, -3.2}, kPoint[] = {1, 2, 0.5};
  template <class V>
  static FASTNETS_INLINE void input(V* d) {
    const V first = add_times(d[0] - d[6], 5.25F, d[4] - d[2]);
    const V last = add_times(d[7] - d[1], 5.25F, d[3] - d[5]);
    const V even1 = add_times(d[2] + d[6], -4.25F, d[4]);
    const V odd1 = add_times(d[1] + d[5], -4.25F, d[3]);
    const V even2 = add_times(add_times(d[6], 0.25F, d[2]), -1.25F, d[4]);
    const V odd2 = add_times(add_times(times(0.5F, d[1]), -2.5F, d[3]), 2.0F, d[5]);
    const V even3 = add_times(d[6], 4.0F, add_times(d[2], -1.25F, d[4]));
    const V odd3 = add_times(add_times(d[1] + d[1], -2.5F, d[3]), 0.5F, d[5]);
    d[0] = first;
    d[7] = last;
    d[1] = even1 + odd1;
    d[2] = even1 - odd1;
    d[3] = even2 + odd2;
    d[4] = even2 - odd2;
    d[5] = even3 + odd3;
    d[6] = even3 - odd3;
  }
};

// Stride 2: 3 outputs of 7 inputs. Its even inputs meet two taps of the kernel, which is F(3, 2) with the
// points 0, 1, -1 and infinity; its odd ones meet one tap. So 7 products instead of 9.
template <>
struct Points<7> {
  template <class V>
  static FASTNETS_INLINE void input(V* d) {
    const V sum = d[2] + d[4], difference = d[4] - d[2], last = d[6] - d[2];
    const V odd0 = d[1], odd1 = d[3], odd2 = d[5];
    d[0] = d[0] - d[4];
    d[1] = sum;
    d[2] = difference;
    d[3] = last;
    d[4] = odd0;
    d[5] = odd1;
    d[6] = odd2;
  }
};

constexpr double power(double base, int exponent) {
  return exponent == 0 ? 1 : base * power(base, exponent - 1);
}

// An axis of F(kCount, taps). kAdvance: inputs from a tile to the next. kSteps: output() leaves it to what
// follows to multiply result i by kSixStep to the power of i * kSteps.
template <int kCount, int kTaps>
struct Axis {
  static constexpr int kOutputs = kCount, kPoints = kCount + kTaps - 1, kAdvance = kCount;
  static constexpr int kSteps = kPoints == 6 ? 1 : 0;

  // A^T: row i has the i-th powers of the points, and the last one infinity.
  template <class V>
  static FASTNETS_INLINE void output(V* m) {
    using Of = Points<kPoints>;
    V even[Of::kPairs], odd[Of::kPairs];
#pragma GCC unroll 3
    for (int pair = 0; pair < Of::kPairs; ++pair) {
      const V sum = m[1 + 2 * pair] + m[2 + 2 * pair], difference = m[1 + 2 * pair] - m[2 + 2 * pair];
      const bool negative = Of::kPoint[pair] < 1 && kTaps % 2 == 0;  // of the second of the pair
      even[pair] = negative ? difference : sum;
      odd[pair] = negative ? sum : difference;
    }
    const V zero = m[0], infinity = m[kPoints - 1];
#pragma GCC unroll 8
    for (int i = 0; i < kOutputs; ++i) {
      const V* const sums = i % 2 == 0 ? even : odd;
      V sum = sums[0];
      if (i == 0) sum = add_times(sum, static_cast<float>(Of::kZero), zero);
#pragma GCC unroll 3
      for (int pair = 1; pair < Of::kPairs; ++pair) sum = add_times(sum, scale(pair, i), sums[pair]);
      if (i == kOutputs - 1) sum = add_times(sum, static_cast<float>(Of::kInfinity), infinity);
      m[i] = sum;
    }
  }

 private:
  // Of a pair of points, in row i. Where the points are fractions, G has the kernel's polynomial backwards,
  // which at -2 is the negative of it where the taps are even.
  static constexpr float scale(int pair, int i) {
    const double point = Points<kPoints>::kPoint[pair];
    return static_cast<float>(Points<kPoints>::kPair[pair] * power(point, point < 1 ? i + kTaps - 1 : i));
  }
};

template <>
struct Axis<1, 1> {
  static constexpr int kOutputs = 1, kPoints = 1, kAdvance = 1, kSteps = 0;
  template <class V>
  static FASTNETS_INLINE void output(V*) {}
};

// Of stride 2.
template <>
struct Axis<3, 3> {
  static constexpr int kOutputs = 3, kPoints = 7, kAdvance = 6, kSteps = 0;
  template <class V>
  static FASTNETS_INLINE void output(V* m) {
    const V sum = m[1] + m[2], difference = m[1] - m[2];
    m[0] = (m[0] + sum) + m[4];
    m[1] = difference + m[5];
    m[2] = (sum + m[3]) + m[6];
  }
};

}  // namespace FASTNETS_LEVEL
}  // namespace fastnets
