// The machine's ceiling of fp32 arithmetic, which benchmarks quote.
#pragma once

#include "cpu/isa.h"

namespace fastnets {

// Runs `rounds` rounds of independent multiply-adds in registers; the number of floating-point operations of
// one thread. `keep` receives a result, so that the work cannot be dropped.
FASTNETS_DECLARE(double, peak_arithmetic, (long rounds, float* keep));

}  // namespace fastnets
