// The activations of an Epilogue on vectors. Included by kernel files only.
//
// Errors are at most a few units of the last place of the result or, for gelu, 1.5e-7 of |v|.
#pragma once

#include <limits>

#include "common/epilogue.h"
#include "cpu/vec.h"

namespace fastnets {
namespace FASTNETS_LEVEL {

// e^v: 2^k e^r with |r| <= ln(2) / 2, by the Taylor series of e^r to r^7, whose remainder is 5e-9.
// Saturates at 2^-126 and at 2.4e38.
FASTNETS_INLINE Vec exp(Vec v) {
  const Vec magic = Vec::set(12582912.0F);  // 1.5 * 2^23: adding it rounds to an integer
  v = min(Vec::set(88.37F), max(Vec::set(-87.33F), v));
  const Vec shifted = fma(v, Vec::set(1.44269504F), magic);
  const Vec k = shifted - magic;
  // ln 2 in two parts, the first with trailing zeros, so that k * part is exact
  const Vec r = fnma(k, Vec::set(-2.12194440e-4F), fnma(k, Vec::set(0.693359375F), v));
  Vec sum = Vec::set(1.0F / 5040);
  sum = fma(sum, r, Vec::set(1.0F / 720));
  sum = fma(sum, r, Vec::set(1.0F / 120));
  sum = fma(sum, r, Vec::set(1.0F / 24));
  sum = fma(sum, r, Vec::set(1.0F / 6));
  sum = fma(sum, r, Vec::set(0.5F));
  sum = fma(sum, r, Vec::set(1.0F));
  sum = fma(sum, r, Vec::set(1.0F));
  return sum * exponent_of(shifted);
}

FASTNETS_INLINE Vec sigmoid(Vec v) { return Vec::set(1.0F) / (Vec::set(1.0F) + exp(Vec::set(0.0F) - v)); }

// Below 0.625 the continued fraction of tanh to its fifth term (error 1e-9), which has no cancellation.
FASTNETS_INLINE Vec tanh(Vec v) {
  const Vec square = v * v, one = Vec::set(1.0F);
  const Vec top = fma(square, square + Vec::set(105.0F), Vec::set(945.0F));
  const Vec bottom = fma(square, fma(square, Vec::set(15.0F), Vec::set(420.0F)), Vec::set(945.0F));
  const Vec far = one - Vec::set(2.0F) / (one + exp(v + v));
  return if_less(square, Vec::set(0.390625F), v * top / bottom, far);
}

// e^v - 1 for v < 0: the Taylor series to v^8 above -0.35, where e^v - 1 would cancel.
FASTNETS_INLINE Vec expm1_negative(Vec v) {
  Vec sum = Vec::set(1.0F / 40320);
  sum = fma(sum, v, Vec::set(1.0F / 5040));
  sum = fma(sum, v, Vec::set(1.0F / 720));
  sum = fma(sum, v, Vec::set(1.0F / 120));
  sum = fma(sum, v, Vec::set(1.0F / 24));
  sum = fma(sum, v, Vec::set(1.0F / 6));
  sum = fma(sum, v, Vec::set(0.5F));
  sum = fma(sum, v, Vec::set(1.0F));
  return if_less(v, Vec::set(-0.35F), exp(v) - Vec::set(1.0F), sum * v);
}

// v Phi(v), where Phi(v) = erfc(-v / sqrt(2)) / 2, by Abramowitz and Stegun 7.1.26.
FASTNETS_INLINE Vec gelu(Vec v) {
  const Vec zero = Vec::set(0.0F), one = Vec::set(1.0F);
  const Vec z = max(v, zero - v) * Vec::set(0.70710678F);
  const Vec t = one / fma(z, Vec::set(0.3275911F), one);
  Vec sum = Vec::set(1.061405429F);
  sum = fma(sum, t, Vec::set(-1.453152027F));
  sum = fma(sum, t, Vec::set(1.421413741F));
  sum = fma(sum, t, Vec::set(-0.284496736F));
  sum = fma(sum, t, Vec::set(0.254829592F));
  const Vec tail = Vec::set(0.5F) * sum * t * exp(zero - z * z);  // Phi(-|v|)
  return v * if_less(v, zero, tail, one - tail);
}

FASTNETS_INLINE Vec hardsigmoid(Vec v) {
  return min(Vec::set(6.0F), max(Vec::set(0.0F), v + Vec::set(3.0F))) * Vec::set(1.0F / 6.0F);
}

// One vector through any activation. Kernels apply a Clamp to what is in registers and call activate_row for
// the rest: with all cases inline, their code would not fit the instruction cache.
FASTNETS_INLINE Vec activate(Vec v, Activation kind, float alpha, float beta) {
  const Vec zero = Vec::set(0.0F), a = Vec::set(alpha);
  switch (kind) {
    case Activation::none:
      return v;
    case Activation::relu:
      return max(zero, v);
    case Activation::relu6:
      return min(Vec::set(6.0F), max(zero, v));
    case Activation::clamp:
      return min(Vec::set(beta), max(a, v));
    case Activation::leaky:
      return if_less(v, zero, a * v, v);
    case Activation::elu:
      return if_less(v, zero, a * expm1_negative(v), v);
    case Activation::silu:
      return v * sigmoid(v);
    case Activation::hardswish:
      return v * hardsigmoid(v);
    case Activation::hardsigmoid:
      return hardsigmoid(v);
    case Activation::sigmoid:
      return sigmoid(v);
    case Activation::tanh:
      return tanh(v);
    case Activation::gelu:
      return gelu(v);
    case Activation::gelu_tanh: {
      const Vec inner =
          v * fma(v * v, Vec::set(0.035677408F), Vec::set(0.79788456F));  // sqrt(2/pi)(v + 0.044715 v^3)
      return Vec::set(0.5F) * v * (Vec::set(1.0F) + tanh(inner));
    }
  }
  return v;
}

// Applies the activation in place to n elements.
template <class T>
__attribute__((noinline, unused)) void activate_row(T* y, int64_t n, const Epilogue& epilogue) {
  const Activation kind = epilogue.activation;
  for (int64_t i = 0; i < n; i += Vec::width) {
    const int lanes = n - i < Vec::width ? static_cast<int>(n - i) : Vec::width;
    activate(Vec::load(y + i, lanes), kind, epilogue.alpha, epilogue.beta).store(y + i, lanes);
  }
}

// The part of the activation that costs two instructions: min(high, max(low, v)), which also keeps NaN.
// `bounds_below` and `bounds_above` say which of the two do anything; `more`, that activate_row must follow,
// once the values are stored.
template <class V>
struct ClampOf {
  V low, high;
  bool bounds_below, bounds_above, more;
  explicit FASTNETS_INLINE ClampOf(const Epilogue& e)
      : low(V::set(-std::numeric_limits<float>::infinity())),
        high(V::set(std::numeric_limits<float>::infinity())),
        bounds_below(e.activation > Activation::none && e.activation <= Activation::clamp),
        bounds_above(bounds_below && e.activation != Activation::relu),
        more(e.activation > Activation::clamp) {
    if (e.activation == Activation::relu || e.activation == Activation::relu6) low = V::set(0.0F);
    if (e.activation == Activation::relu6) high = V::set(6.0F);
    if (e.activation == Activation::clamp) low = V::set(e.alpha), high = V::set(e.beta);
  }
  FASTNETS_INLINE V operator()(V v) const { return min(high, max(low, v)); }
};
using Clamp = ClampOf<Vec>;

// scale and shift of the channels [channel, channel + lanes): of a value, or of a sum that begins with
// start() and ends with finish(), which without a scale is free.
template <class V>
struct ChannelTermsOf {
  V scale, shift;
  bool scales;
  FASTNETS_INLINE ChannelTermsOf(const Epilogue& e, int64_t channel, int lanes)
      : scale(e.scale == nullptr ? V::set(1.0F) : V::load(e.scale + channel, lanes)),
        shift(e.shift == nullptr ? V::set(0.0F) : V::load(e.shift + channel, lanes)),
        scales(e.scale != nullptr) {}
  FASTNETS_INLINE V operator()(V v) const { return fma(v, scale, shift); }
  FASTNETS_INLINE V start() const { return scales ? V::set(0.0F) : shift; }
  FASTNETS_INLINE V finish(V sum) const { return scales ? (*this)(sum) : sum; }
};
using ChannelTerms = ChannelTermsOf<Vec>;

}  // namespace FASTNETS_LEVEL
}  // namespace fastnets
