#include "common/panels.h"

namespace fastnets {
namespace {

template <class T>
void pack(const ProductWeights& w, int64_t lanes, int64_t steps, T* to) {
  for (int64_t g = 0; g < w.groups; ++g) {
    for (int64_t first = 0; first < w.cout; first += lanes) {
      for (int64_t tap = 0; tap < w.taps; ++tap) {
        const T* from = static_cast<const T*>(w.data) + g * w.stride[0] + tap * w.stride[3];
        for (int64_t pair = 0; pair < w.cin; pair += steps) {
          for (int64_t co = first; co < first + lanes; ++co) {
            for (int64_t ci = pair; ci < pair + steps; ++ci) {
              *to++ = co < w.cout && ci < w.cin ? from[ci * w.stride[1] + co * w.stride[2]] : T{};
            }
          }
        }
      }
    }
  }
}

}  // namespace

int64_t panel_elements(const ProductWeights& w, int64_t lanes, int64_t steps) {
  return w.groups * ((w.cout + lanes - 1) / lanes) * w.taps * ((w.cin + steps - 1) / steps * steps) * lanes;
}

void pack_panels(const ProductWeights& w, int64_t lanes, int64_t steps, void* to) {
  with_element(w.element, [&](auto zero) { pack(w, lanes, steps, static_cast<decltype(zero)*>(to)); });
}

}  // namespace fastnets
