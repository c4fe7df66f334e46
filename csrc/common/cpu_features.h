// Which instruction-set level this process runs its kernels at.
#pragma once

#include <string>
#include <vector>

namespace fastnets {

enum class Isa { generic, avx2, avx512, avx512_bf16, amx_bf16 };

// The levels that both this build and this machine have, lowest first.
std::vector<Isa> available_isas();

// The level in use: FASTNETS_ISA if set, else the highest available. Read once per process.
// Throws std::invalid_argument where FASTNETS_ISA names a level that is not available, and std::runtime_error
// where none is.
Isa active_isa();

const char* isa_name(Isa isa);

// Whether Intel made the processor: some kernels run another way there. assume_intel: for tests of both ways.
bool is_intel();
void assume_intel(bool intel);

}  // namespace fastnets
