// Transposed convolution by tiles (cpu/conv_direct.cpp), where the level has them. Included by kernel files
// only.
#pragma once

#include "cpu/conv.h"
#include "cpu/conv_transpose.h"

namespace fastnets {
namespace FASTNETS_LEVEL {

int64_t transposed_by_tiles_scratch(const ConvTransposeCall& call, int threads);
void transpose_by_tiles(const ConvTransposeCall& call, void* scratch, ThreadContext& context);

}  // namespace FASTNETS_LEVEL
}  // namespace fastnets
