// A weight's bf16 pieces, laid out as the products of forward and of backward read them, from the update that has written the
// weight to the next step.
#pragma once

#include <cstddef>

#include "kernels/precision.h"
#include "runtime/arena.h"
#include "runtime/parallel.h"

namespace trainstep {

class WeightPieces {
  public:
    // Of a weight (in, out). What there was is forgotten where any of it is another than before. backward: also those for dx.
    void reserve(std::size_t in, std::size_t out, MatmulPrecision precision, bool backward);

    // Packs these rows of the weight w, which begin at a multiple of grain() and end there or with the weight. False where a number
    // in them is not finite: then what there is is no use.
    static std::size_t grain();
    bool pack(const float* w, Range rows);

    // All are those of the weight as it is; they are not any more.
    void are_whole() { whole_ = true; }
    void forget() { whole_ = used_ = false; }
    // Whether products take them, where they are whole and for that precision.
    void use(bool on, MatmulPrecision precision) { used_ = on && whole_ && precision == precision_; }

    // For Gemm::packed_b; null: they are not used.
    const void* of_forward() const { return used_ ? forward_.as<char>() : nullptr; }
    const void* of_backward() const { return used_ && backward_.bytes() > 0 ? backward_.as<char>() : nullptr; }

  private:
    std::size_t in_ = 0, out_ = 0;
    MatmulPrecision precision_ = MatmulPrecision::float32;
    Arena forward_, backward_;
    bool whole_ = false, used_ = false;
};

}  // namespace trainstep
