#include "common/cpu_features.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

namespace fastnets {

std::vector<Isa> available_isas() {
  std::vector<Isa> levels{Isa::generic};
#if defined(__x86_64__)
  __builtin_cpu_init();  // also asks XGETBV whether the operating system saves the registers
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    levels.push_back(Isa::avx2);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
      levels.push_back(Isa::avx512);
      if (__builtin_cpu_supports("avx512bf16")) levels.push_back(Isa::avx512_bf16);
    }
  }
#endif
#if defined(FASTNETS_ONLY)
  levels.erase(
      std::remove_if(levels.begin(), levels.end(), [](Isa isa) { return isa != Isa::FASTNETS_ONLY; }),
      levels.end());
#endif
  return levels;
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::avx512_bf16:
      return "avx512_bf16";
    case Isa::avx512:
      return "avx512";
    case Isa::avx2:
      return "avx2";
    default:
      return "generic";
  }
}

namespace {

Isa choose() {
  const std::vector<Isa> levels = available_isas();
  if (levels.empty())
    throw std::runtime_error(
        "this build is for one ISA level that this machine lacks: build without FASTNETS_ONLY");
  const char* forced = std::getenv("FASTNETS_ISA");
  if (forced == nullptr || *forced == '\0') return levels.back();
  std::string names;
  for (Isa isa : levels) {
    if (std::string(forced) == isa_name(isa)) return isa;
    names += names.empty() ? "" : ", ";
    names += isa_name(isa);
  }
  throw std::invalid_argument("FASTNETS_ISA=" + std::string(forced) +
                              " is not a level of this machine and build: unset it, or use one of " + names);
}

}  // namespace

Isa active_isa() {
  static const Isa isa = choose();
  return isa;
}

}  // namespace fastnets
