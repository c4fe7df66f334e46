// Weights of a gathered product, packed so that a kernel reads them in order.
#pragma once

#include <cstdint>

#include "common/conv_pack.h"

namespace fastnets {

// weight[group][cin][cout][tap] at any strides, in elements.
struct ProductWeights {
  const void* data;
  Element element;
  int64_t groups, cin, cout, taps;
  int64_t stride[4];
};

// [group][block][tap][cin][lanes][steps], where a block is `lanes` output channels, and cin counts in steps;
// the last channels, of both, are padded with 0, those of cin to a multiple of `depth`.
int64_t panel_elements(const ProductWeights& w, const ProductPacking& packing);
void pack_panels(const ProductWeights& w, const ProductPacking& packing, void* to);

}  // namespace fastnets
