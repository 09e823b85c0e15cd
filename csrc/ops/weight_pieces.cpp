#include "ops/weight_pieces.h"

#include "kernels/table.h"
#include "runtime/isa.h"

namespace trainstep {

namespace {
// As operand B of a product: w of x @ w, or w^T of dz @ w^T.
Gemm<float> operand(const float* w, std::size_t in, std::size_t out, MatmulPrecision precision, bool transposed) {
    Gemm<float> g{};
    g.precision = precision, g.b = w;
    g.k = transposed ? out : in, g.n = transposed ? in : out;
    g.b_k = transposed ? 1 : out, g.b_column = transposed ? out : 1;
    return g;
}
}  // namespace

std::size_t WeightPieces::grain() { return kernels().pieces_grain; }

void WeightPieces::reserve(std::size_t in, std::size_t out, MatmulPrecision precision, bool backward) {
    const bool has_backward = backward_.bytes() > 0;
    if (in == in_ && out == out_ && precision == precision_ && backward == has_backward) return;
    forget();
    in_ = in, out_ = out, precision_ = precision;
    const auto bytes = [&](bool transposed) { return kernels().packed_pieces(operand(nullptr, in, out, precision, transposed)); };
    forward_ = Arena(bytes(false));
    backward_ = Arena(backward ? bytes(true) : 0);
}

bool WeightPieces::pack(const float* w, Range rows) {
    const auto pack = kernels().pack_pieces;
    bool finite = pack(forward_.as<char>(), operand(w, in_, out_, precision_, false), 0, out_, rows.begin, rows.end);
    if (backward_.bytes() > 0)
        finite &= pack(backward_.as<char>(), operand(w, in_, out_, precision_, true), rows.begin, rows.end, 0, out_);
    return finite;
}

}  // namespace trainstep
