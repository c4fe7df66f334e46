#include "cpu/peak.h"

#include "cpu/products.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

template <class T>
double multiply_add(long rounds, float* keep) {
  constexpr int kSums = 12;  // more than latency times units needs, and fewer than 16 registers
  T factors[kColumns<T>];
  std::memcpy(factors, keep, sizeof(factors));
  Vec sum[kSums];
#pragma GCC unroll 12
  for (int i = 0; i < kSums; ++i) sum[i] = Vec::set(static_cast<float>(i));
  const auto a = row_factor(factors);
  const auto b = lane_factor<Vec>(factors);
  for (long r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (int i = 0; i < kSums; ++i) sum[i] = fma(a, b, sum[i]);
  }
#pragma GCC unroll 12
  for (int i = 1; i < kSums; ++i) sum[0] = sum[0] + sum[i];
  sum[0].store(keep, 2);
  return 2.0 * kColumns<T> * kSums * static_cast<double>(rounds);
}

#if defined(FASTNETS_LEVEL_amx_bf16)
template <>
double multiply_add<Bf16>(long rounds, float*) {
  const Tiles<Bf16> tiles;
  return tile_operations(rounds);
}
#endif

}  // namespace
}  // namespace FASTNETS_LEVEL

double FASTNETS_ENTRY(peak_arithmetic)(Element element, long rounds, float* keep) {
  using namespace FASTNETS_LEVEL;
  double operations = 0;
  with_own_element(element, [&](auto zero) { operations = multiply_add<decltype(zero)>(rounds, keep); });
  return operations;
}

}  // namespace fastnets
