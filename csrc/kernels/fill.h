// What the k_<family>.cpp files of one ISA level define: each fills its rows of the level's table.
#pragma once

#include "kernels/table.h"

namespace trainstep::TRAINSTEP_ISA {

void fill_elementwise(KernelTable& table);
void fill_gemm(KernelTable& table);
void fill_losses(KernelTable& table);
void fill_metrics(KernelTable& table);
void fill_normalize(KernelTable& table);
void fill_optimizers(KernelTable& table);
void fill_pieces(KernelTable& table);
void fill_probes(KernelTable& table);

const KernelTable& kernel_table();

}  // namespace trainstep::TRAINSTEP_ISA
