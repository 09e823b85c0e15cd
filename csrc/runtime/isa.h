// The ISA levels compiled into this library, and the choice of one at import.
#pragma once

#include <string>
#include <vector>

namespace trainstep {

struct KernelTable;

struct IsaLevel {
    const char* name;     // "generic", "avx2", "avx512", "avx512_bf16", "amx", "neon"
    const char* flags;    // compiler flags of the level's k_*.cpp files
    const char* base;     // the level whose kernels it takes but for products of bf16 pieces; itself where all are its own
    bool (*supported)();  // by this CPU and its operating system
    const KernelTable& (*table)();
};

// Every compiled level, from the plainest to the widest.
const std::vector<IsaLevel>& isa_levels();

// Chooses the level: TRAINSTEP_ISA if it is set, else the widest that is supported. Throws std::invalid_argument where
// TRAINSTEP_ISA names a level that does not exist or cannot run here. Called once, at import.
void select_isa();

const IsaLevel& selected_isa();
const std::string& selected_isa_reason();

// The table of the selected level: the one pointer between the formulas and their compiled forms.
extern const KernelTable* selected_kernels;
inline const KernelTable& kernels() { return *selected_kernels; }

}  // namespace trainstep
