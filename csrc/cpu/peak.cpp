#include "cpu/peak.h"

#include "cpu/vec.h"

namespace fastnets {

double FASTNETS_ENTRY(peak_arithmetic)(long rounds, float* keep) {
  using namespace FASTNETS_LEVEL;
  constexpr int kSums = 12;  // more than latency times units needs, and fewer than 16 registers
  Vec sum[kSums];
#pragma GCC unroll 12
  for (int i = 0; i < kSums; ++i) sum[i] = Vec::set(static_cast<float>(i));
  const Vec a = Vec::set(keep[0]), b = Vec::set(keep[1]);
  for (long r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (int i = 0; i < kSums; ++i) sum[i] = fma(sum[i], a, b);
  }
#pragma GCC unroll 12
  for (int i = 1; i < kSums; ++i) sum[0] = sum[0] + sum[i];
  sum[0].store(keep, 2);
  return 2.0 * Vec::width * kSums * static_cast<double>(rounds);
}

}  // namespace fastnets
