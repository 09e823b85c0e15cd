// One optimizer step over many arrays; norms of many arrays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/table.h"
#include "runtime/arena.h"
#include "runtime/parallel.h"

namespace trainstep {

// One array to step: n elements of w, their gradient, their states, the options of the param group that they belong to, and the
// terms of this step.
struct StepArray {
    void* w = nullptr;
    Dtype w_dtype = Dtype::float32;
    float* master = nullptr;  // of a bfloat16 w
    void* g = nullptr;        // null: the array is left out of this step
    Dtype g_dtype = Dtype::float32;
    void* states[kMaxStates] = {};
    std::uint8_t* exponents[kMaxStates] = {};
    StateFormat format = StateFormat::native;
    std::size_t n = 0;
    const OptimizerOptions* options = nullptr;
    alignas(kPair) StepTerms terms;  // apart from what stays
    std::uint32_t rounding_key = 0;  // of this step, for states in fewer bits
};

// Many arrays as pieces of work, which do not depend on the number of threads. They lie end to end on one line, each from a
// multiple of kBlock on; the line is cut into chunks of equal length, and an array is cut where the line is.
class StepPlan {
  public:
    StepPlan() = default;
    explicit StepPlan(const std::vector<std::size_t>& sizes);

    struct Piece {
        std::size_t array;
        Range elements;
    };
    std::size_t arrays() const { return first_of_array_.size() - 1; }
    std::size_t chunks() const { return first_of_chunk_.size() - 1; }
    std::size_t pieces() const { return pieces_.size(); }
    const Piece& piece(std::size_t i) const { return pieces_[i]; }
    Range pieces_of_array(std::size_t a) const { return {first_of_array_[a], first_of_array_[a + 1]}; }
    Range pieces_of_chunks(Range chunks) const { return {first_of_chunk_[chunks.begin], first_of_chunk_[chunks.end]}; }
    std::size_t length() const { return length_; }

  private:
    std::vector<Piece> pieces_;
    std::vector<std::size_t> first_of_array_{0}, first_of_chunk_{0};
    std::size_t length_ = 0;
};

// Steps all arrays in one parallel region. sums: one a piece, for the rules with a trust ratio, whose terms.trust it sets.
void optimizer_step(OptimizerKind kind, std::vector<StepArray>& arrays, const StepPlan& plan, std::vector<SquareSums>& sums,
                    bool zero_grads = false);

// Steps a range of one array, on the calling thread. Not for a rule with a trust ratio; of states in eight bits only whole blocks.
void optimizer_step_range(OptimizerKind kind, const StepArray& array, Range elements, bool zero_grads = false);

// The same for some rows and columns of an array whose rows are `row` elements long; of states in the parameter's own dtype. g: the
// gradient of the block's first element, in that dtype too; its rows begin g_stride elements apart.
void optimizer_step_block(OptimizerKind kind, const StepArray& array, std::size_t row, Range rows, Range columns, const void* g,
                          std::size_t g_stride);

// Whether a rule needs its whole tensors before it can step any element of them.
bool has_trust_ratio(OptimizerKind kind);

// Arrays to take a norm of.
struct NormArray {
    const void* x;  // null: left out
    Dtype dtype;
};
// The Euclidean norm of all arrays as one vector, in double precision; infinite or NaN where an element is. The sums of the pieces
// are added in their order. sums: one a piece.
double global_norm(const std::vector<NormArray>& arrays, const StepPlan& plan, std::vector<double>& sums);

// What a gradient of that norm is multiplied with, as PyTorch's clip_grad_norm_ does: at most 1; NaN where the norm is NaN.
inline double clip_factor(double max_norm, double norm) {
    const double factor = max_norm / (norm + 1e-6);
    return factor > 1 ? 1 : factor;
}

}  // namespace trainstep
