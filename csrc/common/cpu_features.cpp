#include "common/cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace fastnets {
namespace {

#if defined(__x86_64__)
// Whether the cores have tiles of bfloat16, and the system lets this process use them: Linux keeps their 8
// KiB of registers for those threads only whose process has asked (Documentation/arch/x86/xstate.rst).
bool may_use_tiles() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kTileBf16 = 1U << 22, kTiles = 1U << 24;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kTileBf16) == 0 || (d & kTiles) == 0) return false;
#if defined(SYS_arch_prctl)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

bool made_by_intel() {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kGenu = 0x756e6547;  // the first letters of GenuineIntel
  return __get_cpuid(0, &a, &b, &c, &d) != 0 && b == kGenu;
#else
  return false;
#endif
}

std::atomic<bool>& intel() {
  static std::atomic<bool> value{made_by_intel()};
  return value;
}

}  // namespace

bool is_intel() { return intel().load(std::memory_order_relaxed); }
void assume_intel(bool value) { intel().store(value, std::memory_order_relaxed); }

std::vector<Isa> available_isas() {
  std::vector<Isa> levels{Isa::generic};
#if defined(__x86_64__)
  __builtin_cpu_init();  // also asks XGETBV whether the operating system saves the registers
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    levels.push_back(Isa::avx2);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
      levels.push_back(Isa::avx512);
      if (__builtin_cpu_supports("avx512bf16")) {
        levels.push_back(Isa::avx512_bf16);
        if (may_use_tiles()) levels.push_back(Isa::amx_bf16);
      }
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
    case Isa::amx_bf16:
      return "amx_bf16";
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
