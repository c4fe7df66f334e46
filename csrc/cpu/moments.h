// Mean and sum of squared deviations, joined run by run in double by the formula of Chan, Golub and LeVeque
// (1979). Included by kernel files only.
#pragma once

#include <cstdint>

#include "common/inline.h"
#include "cpu/isa.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

// Adds a run of `n` pixels to mean and m2 of the `before` pixels: of each channel a center close to its mean,
// the sum of the differences from it, and that of their squares.
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

}  // namespace
}  // namespace FASTNETS_LEVEL
}  // namespace fastnets
