// Products of bf16 pieces.
#include "kernels/fill.h"
#include "kernels/pieces.h"

namespace trainstep::TRAINSTEP_ISA {

void fill_pieces(KernelTable& table) {
    table.gemm_pieces = gemm_pieces;
    table.gemm_pieces_scratch = gemm_pieces_scratch;
    table.gemm_pieces_tile_rows = pieces::Unit::kRows;
    table.gemm_pieces_tile_columns = pieces::Unit::kColumns;
    table.packed_pieces = packed_pieces;
    table.pack_pieces = pack_pieces;
    table.pieces_grain = pieces::kGrain;
    table.gemm_pieces_rate = pieces::Unit::kRate;
    table.gemm_pieces_units = pieces::Unit::kName;
}

}  // namespace trainstep::TRAINSTEP_ISA
