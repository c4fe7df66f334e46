// How the level in use wants the weights of a product.
#pragma once

#include "common/conv_pack.h"
#include "cpu/conv.h"

namespace fastnets {

inline ProductPacking product_packing(Element element) {
  return {FASTNETS_CALL(conv_lanes)(), FASTNETS_CALL(conv_steps)(element),
          FASTNETS_CALL(conv_depth)(element)};
}

}  // namespace fastnets
