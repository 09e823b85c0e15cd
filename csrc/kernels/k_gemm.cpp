// The matrix product and what goes with it in a dense layer.
#include "kernels/fill.h"

namespace trainstep::TRAINSTEP_ISA {

namespace {

template <class T>
void fill(Kernels<T>& k) {
    k.gemm = gemm<T>;
    k.gemm_scratch = gemm_scratch<T>;
    k.gemm_tile_rows = kTileRows;
    k.gemm_tile_columns = kTileColumns<T>;
    k.sum_chains = sum_chains<T>;
    k.column_sum = column_sum<T>;
}

}  // namespace

void fill_gemm(KernelTable& table) {
    fill(table.f32);
    fill(table.f64);
}

}  // namespace trainstep::TRAINSTEP_ISA
