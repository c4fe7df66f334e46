// How one kernel source becomes one symbol per ISA level, and how a caller picks among them.
//
// A kernel file cpu/<op>.cpp is compiled once per level. Its helpers live in an anonymous namespace
// inside one named after the level, and those of headers for kernel files in the latter, so that no inline
// function compiled with AVX-512 flags is merged into a unit of another level, and so that every symbol above
// the baseline says its level (tests/test_build.py disassembles the library by that). What several kernels
// call and takes long to compile is a unit of its own: products.cpp, depthwise_row.cpp. The entry points of a
// kernel are plain functions on pointers and sizes:
//
//   // cpu/<op>.h
//   FASTNETS_DECLARE(void, my_op, (const float* x, int64_t n));
//   // cpu/<op>.cpp
//   namespace FASTNETS_LEVEL { namespace { ...helpers... } }
//   void FASTNETS_ENTRY(my_op)(const float* x, int64_t n) { ... }
//   // ops/<op>.cpp, compiled once with the baseline flags: register_<op>(m) and the argument checks
//   FASTNETS_CALL(my_op)(x, n);
//
// Level avx512_bf16 has kernels of its own where its instructions pay, for bfloat16 alone: those of
// FASTNETS_DECLARE_BF16, whose sources are BF16_SOURCES in CMakeLists.txt. For float32 (FASTNETS_CALL_OF) and
// all others it calls those of avx512. Likewise level amx_bf16: FASTNETS_DECLARE_AMX and AMX_SOURCES, and for
// all others of bfloat16 those of avx512_bf16. A build of FASTNETS_ONLY one level has that alone, each kernel
// of its own; it is refused where the machine lacks it.
#pragma once

#include "common/cpu_features.h"
#include "common/element.h"

#define FASTNETS_CONCAT_(a, b) a##_##b
#define FASTNETS_CONCAT(a, b) FASTNETS_CONCAT_(a, b)

// The name of an entry point at the level that this unit is compiled for.
#define FASTNETS_ENTRY(name) FASTNETS_CONCAT(name, FASTNETS_LEVEL)

#if defined(FASTNETS_ONLY)
#define FASTNETS_DECLARE(result, name, arguments) result FASTNETS_CONCAT(name, FASTNETS_ONLY) arguments
#define FASTNETS_DECLARE_BF16 FASTNETS_DECLARE
#define FASTNETS_DECLARE_AMX FASTNETS_DECLARE
#define FASTNETS_CALL(name) ::fastnets::pick(FASTNETS_CONCAT(name, FASTNETS_ONLY))
#define FASTNETS_CALL_OF(element, name) FASTNETS_CALL(name)
#else
#define FASTNETS_DECLARE_TO_AVX512(result, name, arguments) \
  result name##_generic arguments;                          \
  result name##_avx2 arguments;                             \
  result name##_avx512 arguments
#define FASTNETS_DECLARE(result, name, arguments)      \
  FASTNETS_DECLARE_TO_AVX512(result, name, arguments); \
  constexpr auto* name##_avx512_bf16 = &name##_avx512; \
  constexpr auto* name##_amx_bf16 = &name##_avx512
#define FASTNETS_DECLARE_BF16(result, name, arguments) \
  FASTNETS_DECLARE_TO_AVX512(result, name, arguments); \
  result name##_avx512_bf16 arguments;                 \
  constexpr auto* name##_amx_bf16 = &name##_avx512_bf16
#define FASTNETS_DECLARE_AMX(result, name, arguments)  \
  FASTNETS_DECLARE_TO_AVX512(result, name, arguments); \
  result name##_avx512_bf16 arguments;                 \
  result name##_amx_bf16 arguments
#define FASTNETS_CALL_OF(element, name)                                                     \
  ((element) == Element::float32 && ::fastnets::active_isa() > Isa::avx512 ? &name##_avx512 \
                                                                           : FASTNETS_CALL(name))
#define FASTNETS_CALL(name) \
  ::fastnets::pick(name##_generic, name##_avx2, name##_avx512, name##_avx512_bf16, name##_amx_bf16)
#endif

// What level amx_bf16 alone has; null at others. FASTNETS_TILES: the build has that level.
#if defined(FASTNETS_TILES)
#define FASTNETS_DECLARE_TILES_(result, name, arguments) result name##_amx_bf16 arguments
#else
#define FASTNETS_DECLARE_TILES_(result, name, arguments) \
  constexpr result(*name##_amx_bf16) arguments = nullptr
#endif
#define FASTNETS_DECLARE_TILES(result, name, arguments)      \
  constexpr result(*name##_generic) arguments = nullptr;     \
  constexpr result(*name##_avx2) arguments = nullptr;        \
  constexpr result(*name##_avx512) arguments = nullptr;      \
  constexpr result(*name##_avx512_bf16) arguments = nullptr; \
  FASTNETS_DECLARE_TILES_(result, name, arguments)

namespace fastnets {

template <class Function>
Function pick(Function only) {
  active_isa();  // throws where this machine lacks the level
  return only;
}

template <class Function>
Function pick(Function generic, Function avx2, Function avx512, Function avx512_bf16, Function amx_bf16) {
  switch (active_isa()) {
    case Isa::amx_bf16:
      return amx_bf16;
    case Isa::avx512_bf16:
      return avx512_bf16;
    case Isa::avx512:
      return avx512;
    case Isa::avx2:
      return avx2;
    default:
      return generic;
  }
}

}  // namespace fastnets
