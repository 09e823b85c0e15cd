#include "ops/optimizer_step.h"

#include <algorithm>
#include <cmath>

#include "runtime/isa.h"

namespace trainstep {

namespace {

constexpr std::size_t kChunk = 16384;   // elements: the arrays of one chunk fit L2
constexpr double kNsPerElement = 0.34;  // Adam in L2, bound by root and division (Zen 4, AVX-512; 14-bit approximations: 0.43)
constexpr double kNsPerSquare = 0.05;   // reasoned, from loads of L2; not measured
static_assert(kChunk % kBlock == 0, "a piece begins on a block");

template <class T>
StepSpan<T> span(OptimizerKind kind, const StepArray& a, Range elements, bool zero_grads) {
    const std::size_t first = elements.begin;
    StepSpan<T> s{};
    s.w = (a.master ? reinterpret_cast<T*>(a.master) : static_cast<T*>(a.w)) + first;
    if (a.master) s.bfloat16 = static_cast<std::uint16_t*>(a.w) + first;
    s.g = static_cast<char*>(a.g) + first * dtype_size(a.g_dtype);
    s.g_dtype = a.g_dtype;
    s.format = a.format;
    const std::size_t state_size = a.format == StateFormat::native ? sizeof(T) : a.format == StateFormat::bfloat16 ? 2 : 1;
    for (int i = 0; i < kMaxStates; ++i) {
        if (a.states[i]) s.states[i] = static_cast<char*>(a.states[i]) + first * state_size;
        if (a.exponents[i]) s.exponents[i] = a.exponents[i] + first / kBlock;
    }
    s.n = elements.end - first;
    s.rows = 1;
    s.kind = kind;
    s.options = a.options;
    s.terms = &a.terms;
    s.zero_grads = zero_grads;
    s.place = {a.rounding_key, std::uint32_t(first / kBlock)};
    return s;
}

void direction(OptimizerKind kind, const StepArray& a, Range elements, SquareSums& sums) {
    if (a.w_dtype == Dtype::float64)
        kernels().of<double>().direction[int(kind)](span<double>(kind, a, elements, false), sums);
    else
        kernels().of<float>().direction[int(kind)](span<float>(kind, a, elements, false), sums);
}

// |w| and the norm of the direction of a whole tensor, as lamb and lars compare them; 1 where either is 0.
double trust_ratio(OptimizerKind kind, const OptimizerOptions& o, double w, double direction) {
    if (w == 0 || direction == 0) return 1;
    if (kind == OptimizerKind::lars) return o.trust_coefficient * w / (direction + o.weight_decay * w + o.eps);
    return w / direction;
}

template <class F>
void for_pieces(const StepPlan& plan, Team team, F f) {
    const Range mine = plan.pieces_of_chunks(share_of(plan.chunks(), 1, team));
    for (std::size_t i = mine.begin; i < mine.end; ++i) f(i, plan.piece(i));
}

template <class F>
void in_team(const StepPlan& plan, double ns_per_element, F body) {
    const int threads = threads_for(double(plan.length()) * ns_per_element);
    run_team(int(std::min(std::size_t(threads), std::max(plan.chunks(), std::size_t(1)))), body);
}

}  // namespace

StepPlan::StepPlan(const std::vector<std::size_t>& sizes) {
    for (std::size_t a = 0; a < sizes.size(); ++a) {
        for (std::size_t at = 0; at < sizes[a];) {
            const std::size_t left = kChunk - length_ % kChunk, n = std::min(left, sizes[a] - at);
            pieces_.push_back({a, {at, at + n}});
            at += n;
            length_ += (n + kBlock - 1) / kBlock * kBlock;
            if (length_ % kChunk == 0) first_of_chunk_.push_back(pieces_.size());
        }
        first_of_array_.push_back(pieces_.size());
    }
    if (first_of_chunk_.back() != pieces_.size()) first_of_chunk_.push_back(pieces_.size());
}

bool has_trust_ratio(OptimizerKind kind) { return kernels().of<float>().direction[int(kind)] != nullptr; }

void optimizer_step_range(OptimizerKind kind, const StepArray& a, Range elements, bool zero_grads) {
    if (a.w_dtype == Dtype::float64)
        kernels().of<double>().optimizer[int(kind)](span<double>(kind, a, elements, zero_grads));
    else
        kernels().of<float>().optimizer[int(kind)](span<float>(kind, a, elements, zero_grads));
}

void optimizer_step_block(OptimizerKind kind, const StepArray& a, std::size_t row, Range rows, Range columns, const void* g,
                          std::size_t g_stride) {
    const std::size_t height = rows.end - rows.begin, width = columns.end - columns.begin, first = rows.begin * row + columns.begin;
    const auto run = [&]<class T>(StepSpan<T> s) {
        s.g = const_cast<void*>(g);
        s.g_dtype = a.w_dtype;
        s.rows = height, s.stride = row, s.g_stride = g_stride;
        if (width == row && g_stride == row) s.n = height * width, s.rows = 1;
        kernels().of<T>().optimizer[int(kind)](s);
    };
    const Range span_of_row{first, first + width};
    a.w_dtype == Dtype::float64 ? run(span<double>(kind, a, span_of_row, false)) : run(span<float>(kind, a, span_of_row, false));
}

void optimizer_step(OptimizerKind kind, std::vector<StepArray>& arrays, const StepPlan& plan, std::vector<SquareSums>& sums,
                    bool zero_grads) {
    const bool two_passes = has_trust_ratio(kind);
    if (two_passes) sums.assign(plan.pieces(), {});
    Handout handout;
    in_team(plan, kNsPerElement, [&](Team team) {
        if (two_passes) {
            for_pieces(plan, team, [&](std::size_t i, const StepPlan::Piece& piece) {
                if (arrays[piece.array].g) direction(kind, arrays[piece.array], piece.elements, sums[i]);
            });
            team.barrier();
            const Range mine = share_of(plan.arrays(), 1, team);
            for (std::size_t a = mine.begin; a < mine.end; ++a) {
                SquareSums total;
                const Range pieces = plan.pieces_of_array(a);
                for (std::size_t i = pieces.begin; i < pieces.end; ++i) total.w += sums[i].w, total.direction += sums[i].direction;
                arrays[a].terms.trust = trust_ratio(kind, *arrays[a].options, std::sqrt(total.w), std::sqrt(total.direction));
            }
            team.barrier();
        }
        const auto chunks = [&](int part) { return share_of(plan.chunks(), 1, {part, team.parts}); };
        handout.run(
            team, 1, Handout::least_piece(double(kChunk) * kNsPerElement),
            [&](int part) { return chunks(part).end - chunks(part).begin; },
            [&](int part, std::size_t begin, std::size_t end) {
                const std::size_t first = chunks(part).begin;
                const Range pieces = plan.pieces_of_chunks({first + begin, first + end});
                for (std::size_t i = pieces.begin; i < pieces.end; ++i) {
                    const StepPlan::Piece& piece = plan.piece(i);
                    if (arrays[piece.array].g) optimizer_step_range(kind, arrays[piece.array], piece.elements, zero_grads);
                }
            });
    });
}

double global_norm(const std::vector<NormArray>& arrays, const StepPlan& plan, std::vector<double>& sums) {
    const auto total = [&](double scale) {
        sums.assign(plan.pieces(), 0);
        in_team(plan, kNsPerSquare, [&](Team team) {
            for_pieces(plan, team, [&](std::size_t i, const StepPlan::Piece& piece) {
                const NormArray& a = arrays[piece.array];
                if (!a.x) return;
                const char* x = static_cast<const char*>(a.x) + piece.elements.begin * dtype_size(a.dtype);
                const std::size_t n = piece.elements.end - piece.elements.begin;
                sums[i] = a.dtype == Dtype::float64 ? kernels().f64.sum_of_squares(x, a.dtype, n, scale)
                                                    : kernels().f32.sum_of_squares(x, a.dtype, n, scale);
            });
        });
        double sum = 0;
        for (double s : sums) sum += s;
        return sum;
    };
    const double sum = total(1);
    const bool doubles = std::any_of(arrays.begin(), arrays.end(), [](const NormArray& a) { return a.dtype == Dtype::float64; });
    constexpr double kLeast = 0x1p-900, kMost = 0x1p1000;
    if (!doubles || (sum > kLeast && sum < kMost) || std::isnan(sum)) return std::sqrt(sum);
    // Squares of doubles overflow or vanish: once more, in units of a power of two near the largest.
    double largest = 0;
    for (std::size_t i = 0; i < plan.pieces(); ++i) {
        const NormArray& a = arrays[plan.piece(i).array];
        if (!a.x || a.dtype != Dtype::float64) continue;
        const Range elements = plan.piece(i).elements;
        const double most = kernels().f64.max_abs(static_cast<const double*>(a.x) + elements.begin, elements.end - elements.begin);
        if (!std::isfinite(most)) return most;
        largest = std::max(largest, most);
    }
    if (largest == 0) return std::sqrt(sum);
    const double unit = std::exp2(std::clamp(std::floor(std::log2(largest)), -1000.0, 1000.0));
    return std::sqrt(total(1 / unit)) * unit;
}

}  // namespace trainstep
