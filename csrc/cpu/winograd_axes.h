// The transforms of Winograd's convolution Y = A^T (U * (B^T d)) along one axis. Included by
// cpu/winograd_transforms.h only.
//
// Matrices after Lavin and Gray (arXiv:1509.09308), factored by the symmetry of the points +p and -p; U is
// computed by common/conv_pack.cpp. F(m) makes m outputs of m + 2 inputs; F(1) is an axis left as it is, and
// F(3) one of stride 2. kAdvance: inputs from a tile to the next.
#pragma once

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

template <int kOutputs>
struct Axis;

template <>
struct Axis<1> {
  static constexpr int kPoints = 1, kAdvance = 1;
  template <class V>
  static FASTNETS_INLINE void input(V*) {}
  template <class V>
  static FASTNETS_INLINE void output(V*) {}
};

template <>
struct Axis<2> {
  static constexpr int kPoints = 4, kAdvance = 2;
  template <class V>
  static FASTNETS_INLINE void input(V* d) {
    const V sum = d[1] + d[2], difference = d[2] - d[1];
    d[0] = d[0] - d[2];
    d[3] = d[1] - d[3];
    d[1] = sum;
    d[2] = difference;
  }
  template <class V>
  static FASTNETS_INLINE void output(V* m) {
    m[0] = m[0] + (m[1] + m[2]);
    m[1] = (m[1] - m[2]) - m[3];
  }
};

// Stride 2: 3 outputs of 7 inputs. Its even inputs meet two taps of the kernel, which is F(3, 2) with the
// points 0, 1, -1 and infinity; its odd ones meet one tap. So 7 products instead of 9.
template <>
struct Axis<3> {
  static constexpr int kPoints = 7, kAdvance = 6;
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
  template <class V>
  static FASTNETS_INLINE void output(V* m) {
    const V sum = m[1] + m[2], difference = m[1] - m[2];
    m[0] = (m[0] + sum) + m[4];
    m[1] = difference + m[5];
    m[2] = (sum + m[3]) + m[6];
  }
};

template <>
struct Axis<4> {
  static constexpr int kPoints = 6, kAdvance = 4;
  template <class V>
  static FASTNETS_INLINE void input(V* d) {
    const V even1 = add_times(d[4], -4.0F, d[2]), odd1 = add_times(d[3], -4.0F, d[1]);
    const V even2 = d[4] - d[2], odd2 = times(2.0F, d[3] - d[1]);
    d[0] = add_times(add_times(d[4], -5.0F, d[2]), 4.0F, d[0]);
    d[5] = add_times(add_times(d[5], -5.0F, d[3]), 4.0F, d[1]);
    d[1] = even1 + odd1;
    d[2] = even1 - odd1;
    d[3] = even2 + odd2;
    d[4] = even2 - odd2;
  }
  template <class V>
  static FASTNETS_INLINE void output(V* m) {
    const V even1 = m[1] + m[2], odd1 = m[1] - m[2], even2 = m[3] + m[4], odd2 = m[3] - m[4];
    m[0] = m[0] + even1 + even2;
    m[1] = add_times(odd1, 2.0F, odd2);
    m[2] = add_times(even1, 4.0F, even2);
    m[3] = add_times(odd1, 8.0F, odd2) + m[5];
  }
};

template <>
struct Axis<6> {
  static constexpr int kPoints = 8, kAdvance = 6;
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
  template <class V>
  static FASTNETS_INLINE void output(V* m) {
    const V even1 = m[1] + m[2], odd1 = m[1] - m[2], even2 = m[3] + m[4], odd2 = m[3] - m[4];
    const V even3 = m[5] + m[6], odd3 = m[5] - m[6];
    m[0] = (m[0] + even1) + (even2 + even3);
    m[1] = add_times(add_times(odd1, 0.5F, odd3), 2.0F, odd2);
    m[2] = add_times(add_times(even1, 0.25F, even3), 4.0F, even2);
    m[3] = add_times(add_times(odd1, 0.125F, odd3), 8.0F, odd2);
    m[4] = add_times(add_times(even1, 0.0625F, even3), 16.0F, even2);
    m[5] = add_times(add_times(odd1, 0.03125F, odd3), 32.0F, odd2) + m[7];
  }
};

}  // namespace FASTNETS_LEVEL
}  // namespace fastnets
