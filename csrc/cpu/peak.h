// The machine's ceilings of arithmetic, which benchmarks quote.
#pragma once

#include "common/element.h"
#include "cpu/isa.h"

namespace fastnets {

// Runs `rounds` rounds of independent multiply-adds of products of `element` in registers; the number of
// floating-point operations of one thread. `keep` holds 16 floats and receives a result, so that the work
// cannot be dropped.
FASTNETS_DECLARE_AMX(double, peak_arithmetic, (Element element, long rounds, float* keep));

}  // namespace fastnets
