// Weights of a gathered product, packed so that a kernel reads them in order.
#pragma once

#include <cstdint>

#include "common/element.h"

namespace fastnets {

// weight[group][cin][cout][tap] at any strides, in elements.
struct ProductWeights {
  const void* data;
  Element element;
  int64_t groups, cin, cout, taps;
  int64_t stride[4];
};

// Packed: [group][block][tap][cin / steps][lanes][steps], where a block is `lanes` output channels and
// `steps` is conv_steps(element); the last channels, of both, are padded with 0, those of cin to a multiple
// of `depth`.
struct PanelPacking {
  int64_t lanes, steps, depth;
};
int64_t panel_elements(const ProductWeights& w, const PanelPacking& packing);
void pack_panels(const ProductWeights& w, const PanelPacking& packing, void* to);

}  // namespace fastnets
