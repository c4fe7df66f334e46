// The elements of the tensors that kernels take. Whatever they are, kernels compute in fp32.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/inline.h"

namespace fastnets {

enum class Element : int32_t { float32, bfloat16 };

// The upper half of a float: its range, and 8 bits of its precision.
struct Bf16 {
  uint16_t bits;
};

FASTNETS_INLINE float value_of(float x) { return x; }
FASTNETS_INLINE float value_of(Bf16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// Rounds to nearest, ties to even; NaN becomes the quiet one whose payload is 0.
FASTNETS_INLINE void assign(float& to, float value) { to = value; }
FASTNETS_INLINE void assign(Bf16& to, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  to.bits = static_cast<uint16_t>(value == value ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : 0x7fc0);
}

FASTNETS_INLINE int64_t element_bytes(Element element) { return element == Element::bfloat16 ? 2 : 4; }

// Calls use(T()) for the T that `element` stands for.
template <class Use>
FASTNETS_INLINE void with_element(Element element, const Use& use) {
  element == Element::bfloat16 ? use(Bf16()) : use(float());
}

}  // namespace fastnets
