// Losses: the one list, and one struct per formula. A loss takes the network's last output and the target, and gives the loss of
// each row and the gradient of their sum; the mean is taken by the caller, who knows the whole batch.
#pragma once

#include <cstdint>

#include "kernels/lists.h"

// The name, what the mean is over, what the targets may be, and what the two arguments are called.
#define TRAINSTEP_LOSSES(X)                                                   \
    X(softmax_cross_entropy, classes, probabilities, "logits", "labels")      \
    X(sigmoid_binary_cross_entropy, elements, fractions, "logits", "targets") \
    X(categorical_cross_entropy, classes, probabilities, "probs", "onehot")   \
    X(mse, elements, numbers, "pred", "target")                               \
    X(mae, elements, numbers, "pred", "target")                               \
    X(huber, elements, numbers, "pred", "target")                             \
    X(hinge, elements, signs, "scores", "targets")                            \
    X(poisson_nll, elements, counts, "log_rate", "counts")                    \
    X(kl_divergence, classes, probabilities, "logits", "probs")

namespace trainstep {
TRAINSTEP_FAMILY(Loss, TRAINSTEP_LOSSES)

enum class LossOver { elements, classes };
// numbers: not NaN; probabilities and counts: finite, at least 0; fractions: 0 to 1; signs: -1 or 1
enum class TargetKind { numbers, probabilities, counts, fractions, signs };

struct LossFacts {
    LossOver over;  // of a loss over classes a target may be a class index
    TargetKind target;
    const char *pred_name, *target_name;

    // Whether predictions are right or wrong: rows of a loss over classes, elements where a target is one of two.
    constexpr bool has_accuracy() const {
        return over == LossOver::classes || target == TargetKind::fractions || target == TargetKind::signs;
    }
};
#define TRAINSTEP_LOSS_FACTS(name, over, target, pred_name, target_name) \
    LossFacts{LossOver::over, TargetKind::target, pred_name, target_name},
inline constexpr LossFacts kLossFacts[] = {TRAINSTEP_LOSSES(TRAINSTEP_LOSS_FACTS)};
#undef TRAINSTEP_LOSS_FACTS
constexpr const LossFacts& facts(Loss loss) { return kLossFacts[int(loss)]; }

// The target of rows x columns predictions: either class indices (one a row) or an array of the predictions' shape.
template <class T>
struct Target {
    const std::int64_t* labels = nullptr;
    const T* values = nullptr;
};

// What some of the losses can be told.
template <class T>
struct LossOptions {
    const T* class_weight = nullptr;  // (columns), or null: 1 each
    T label_smoothing = 0;
    T delta = 1;  // huber
};

// Losses of a block of rows. loss and correct hold one number a row.
template <class T>
struct LossRows {
    T* loss;                // (rows)
    T* dpred;               // (rows, columns), or null
    std::int32_t* correct;  // (rows), or null: 1 where the first largest prediction is the first largest target; over elements
                            // the number of those that are right
    const T* pred;          // (rows, columns)
    Target<T> target;
    std::size_t rows, columns;
    T scale;                    // factor of dpred: 1/batch for the mean over rows, and so on
    const T* weight = nullptr;  // (rows), or null: factor of a row's loss and gradient
    LossOptions<T> options{};

    // The rows [begin, end) of these.
    LossRows part(std::size_t begin, std::size_t end) const {
        LossRows p = *this;
        p.loss += begin, p.pred += begin * columns, p.rows = end - begin;
        if (dpred) p.dpred += begin * columns;
        if (correct) p.correct += begin;
        if (target.labels) p.target.labels += begin;
        if (target.values) p.target.values += begin * columns;
        if (weight) p.weight += begin;
        return p;
    }
};

}  // namespace trainstep

#ifdef TRAINSTEP_ISA
#include "kernels/transpose.h"
#include "kernels/vmath.h"

namespace trainstep::TRAINSTEP_ISA::losses {

// --- over classes ------------------------------------------------------------------------------------------------------------

// The largest value of a row; NaN is passed over.
template <class T>
TRAINSTEP_INLINE T row_max(const T* x, std::size_t n) {
    const Vec<T> lowest = set1<T>(-T(__builtin_inf()));
    Vec<T> most = lowest;
    for_each_vector<T>(n, [&](std::size_t j, auto part)
                              __attribute__((always_inline)) { most = max(or_else<T>(get<T>(x + j, part), part, lowest), most); });
    return reduce_max<T>(most);
}

template <class T>
TRAINSTEP_INLINE std::size_t first_of(const T* x, std::size_t n, T value) {
    std::size_t j = 0;
    while (j < n && x[j] != value) ++j;
    return j;
}

// A row's target t as numbers, 1 at a label and 0 elsewhere, and its class: the first largest.
template <class T>
class RowTarget {
  public:
    TRAINSTEP_INLINE RowTarget(const LossRows<T>& a, std::size_t row)
        : values_(a.target.values ? a.target.values + row * a.columns : nullptr),
          label_(a.target.labels ? std::size_t(a.target.labels[row]) : 0) {}
    template <class Part>
    TRAINSTEP_INLINE Vec<T> at(std::size_t j, Part part) const {
        if (values_) return get<T>(values_ + j, part);
        using lane = typename VecTraits<T>::lane;
        return lane_index<T>() + iset1<T>(lane(j)) == iset1<T>(lane(label_)) ? set1<T>(T(1)) : zero<T>();
    }
    TRAINSTEP_INLINE std::size_t best(std::size_t columns) const {
        return values_ ? first_of(values_, columns, row_max(values_, columns)) : label_;
    }

  private:
    const T* values_;
    std::size_t label_;
};

// Logits x against targets t, which for a label are 1 there and 0 elsewhere:
//   q_j = weight * class_weight_j * ((1 - label_smoothing) * t_j + label_smoothing / columns)
//   loss = -sum_j q_j log softmax(x)_j, log softmax(x)_j = (x_j - max) - log(sum_i exp(x_i - max));  dx = softmax(x) * sum(q) - q
// With Information::wanted, weight * sum_j t_j log t_j is added to the loss. 0 log 0 = 0. Bishop, Pattern Recognition and Machine
// Learning (2006), 4.108 and 4.109. Without weights and smoothing q is t, and nothing is spent on them.
enum class Information { none, wanted };
template <Information information>
struct softmax_rows {
    template <class T>
    static void run(const LossRows<T>& rows) {
        if (rows.weight || rows.options.class_weight || rows.options.label_smoothing != T(0))
            rows.columns <= kNarrow ? run_narrow<true>(rows) : run_wide<true>(rows);
        else
            rows.columns <= kNarrow ? run_narrow<false>(rows) : run_wide<false>(rows);
    }

  private:
    // Rows of so few columns go kWidth at a time, each in a lane of its own: nothing is added up or compared across a vector, and
    // no lane idles. 64 rows of 10 columns on one core of a Zen 4: 0.55 us, and 0.95 row by row.
    static constexpr std::size_t kNarrow = 32;

    template <bool weighted, class T>
    static void run_narrow(const LossRows<T>& of) {
        const LossRows<T> a = of;  // a copy, which no store through a T* can seem to change
        constexpr std::size_t width = kWidth<T>;
        alignas(64) T x[kNarrow][width], e[kNarrow][width], p[kNarrow][width];  // [j]: of column j
        for (std::size_t r = 0; r < a.rows; r += width) {
            const std::size_t rows = a.rows - r < width ? a.rows - r : width;
            const Tail<T> counted{std::ptrdiff_t(rows)};
            const auto columns_of = [&](T(*to)[width], const T* from) __attribute__((always_inline)) {
                for (std::size_t j = 0; j < a.columns; j += width)
                    transpose_in<T>(to[j], width, from + r * a.columns + j, a.columns, rows, least(width, a.columns - j));
            };
            const auto labels = [&]() __attribute__((always_inline)) {
                alignas(64) typename VecTraits<T>::lane label[width];
                for (std::size_t i = 0; i < width; ++i) label[i] = i < rows ? a.target.labels[r + i] : 0;
                IVec<T> result;
                __builtin_memcpy(&result, label, sizeof result);
                return result;
            };
            columns_of(x, a.pred);
            Vec<T> most = set1<T>(-T(__builtin_inf())), sum = zero<T>();
            for (std::size_t j = 0; j < a.columns; ++j) most = max(load(x[j]), most);  // NaN is passed over
            for (std::size_t j = 0; j < a.columns; ++j) {
                const Vec<T> y = exp_below_max<T>(load(x[j]) - most);
                store<T>(e[j], y);
                sum = sum + y;
            }
            const Vec<T> log_sum = log(sum);
            Vec<T> loss;
            IVec<T> wanted;  // the first largest target
            if (weighted || a.target.values) {
                Vec<T> most_wanted = set1<T>(T(1));
                if (a.target.values) {
                    columns_of(p, a.target.values);
                    most_wanted = -set1<T>(T(__builtin_inf()));
                    for (std::size_t j = 0; j < a.columns; ++j) most_wanted = max(load(p[j]), most_wanted);
                } else {
                    const IVec<T> label = labels();
                    IVec<T> column{};
                    for (std::size_t j = 0; j < a.columns; ++j, column += iset1<T>(1))
                        store<T>(p[j], column == label ? most_wanted : zero<T>());
                }
                wanted = first_equal(p, a.columns, most_wanted);
                const Vec<T> weight = weighted && a.weight ? load_partial(a.weight + r, counted) : set1<T>(T(1));
                Vec<T> mass = zero<T>();
                loss = zero<T>();
                for (std::size_t j = 0; j < a.columns; ++j) {
                    const Vec<T> t = load(p[j]);
                    Vec<T> q = t;
                    if constexpr (weighted) {
                        q = smoothed(a, t) * weight;
                        if (a.options.class_weight) q = q * a.options.class_weight[j];
                        store<T>(p[j], q);
                    }
                    mass = mass + q;
                    loss = q == zero<T>() ? loss : loss + q * surprise<T>(t, (load(x[j]) - most) - log_sum);
                }
                loss = log_sum == log_sum ? loss : log_sum;
                const Vec<T> share = set1<T>(a.scale) / sum * mass;
                for (std::size_t j = 0; j < a.columns; ++j) store<T>(e[j], load(e[j]) * share - a.scale * load(p[j]));
            } else {
                wanted = labels();
                Vec<T> at_label = zero<T>();
                const Vec<T> share = set1<T>(a.scale) / sum, scale = set1<T>(a.scale);
                IVec<T> column{};
                for (std::size_t j = 0; j < a.columns; ++j, column += iset1<T>(1)) {
                    const IVec<T> here = column == wanted;
                    at_label = here ? load(x[j]) : at_label;
                    const Vec<T> y = load(e[j]) * share;
                    store<T>(e[j], here ? y - scale : y);
                }
                loss = log_sum - (at_label - most);
            }
            store_partial(a.loss + r, counted, loss);
            if (a.correct) {
                const IVec<T> right = (first_equal(x, a.columns, most) == wanted) & (log_sum == log_sum);
                for (std::size_t i = 0; i < rows; ++i) a.correct[r + i] = right[i] != 0;
            }
            for (std::size_t j = 0; a.dpred && j < a.columns; j += width)
                transpose_out<T>(a.dpred + r * a.columns + j, a.columns, e[j], width, rows, least(width, a.columns - j));
        }
    }

    template <class T>
    static TRAINSTEP_INLINE Vec<T> smoothed(const LossRows<T>& a, Vec<T> t) {
        const T s = a.options.label_smoothing;
        return s == T(0) ? t : fma(t, set1<T>(T(1) - s), set1<T>(s / T(a.columns)));
    }

    // The first column that equals `value`, lane by lane.
    template <class T>
    static TRAINSTEP_INLINE IVec<T> first_equal(const T (*x)[kWidth<T>], std::size_t columns, Vec<T> value) {
        IVec<T> first = iset1<T>(-1);
        for (std::size_t j = columns; j-- > 0;) first = load(x[j]) == value ? iset1<T>(typename VecTraits<T>::lane(j)) : first;
        return first;
    }

    template <bool weighted, class T>
    static void run_wide(const LossRows<T>& of) {
        const LossRows<T> a = of;
        constexpr std::size_t block = 64;  // rows whose sums share one call of log
        T sum[block], shift[block], log_sum[block], inverse[block];
        for (std::size_t r0 = 0; r0 < a.rows; r0 += block) {
            const std::size_t n = a.rows - r0 < block ? a.rows - r0 : block;
            const auto exps = [&](std::size_t r) { return a.dpred ? a.dpred + (r0 + r) * a.columns : nullptr; };
            for (std::size_t r = 0; r < n; ++r) exponentials(exps(r), a.pred + (r0 + r) * a.columns, a.columns, shift[r], sum[r]);
            map<T>(log_sum, sum, n, [](Vec<T> v) __attribute__((always_inline)) { return log(v); });
            map<T>(inverse, sum, n, [&](Vec<T> v) __attribute__((always_inline)) { return a.scale / v; });
            for (std::size_t r = 0; r < n; ++r) {
                if (weighted || a.target.values)
                    from_target<weighted>(a, r0 + r, exps(r), shift[r], inverse[r], log_sum[r]);
                else
                    from_label(a, r0 + r, exps(r), shift[r], inverse[r], log_sum[r]);
            }
        }
    }

    // shift = the row's maximum, e_j = exp(x_j - shift) unless e is null, sum = sum_j e_j. A NaN makes the sum NaN.
    template <class T>
    static TRAINSTEP_INLINE void exponentials(T* e, const T* x, std::size_t columns, T& shift, T& sum) {
        shift = row_max(x, columns);
        const Vec<T> most = set1<T>(shift);
        Vec<T> total = zero<T>();
        for_each_block<T>(columns, [&](std::size_t first, std::size_t count) __attribute__((always_inline)) {
            Vec<T> part_of_total = zero<T>();
            for_each_vector<T>(count, [&](std::size_t j, auto part) __attribute__((always_inline)) {
                const Vec<T> y = exp_below_max<T>(get<T>(x + first + j, part) - most);
                if (e) put<T>(e + first + j, part, y);
                part_of_total = part_of_total + or_else<T>(y, part, zero<T>());
            });
            total = total + part_of_total;
        });
        sum = reduce_add<T>(total);
    }

    // Sums of so many vectors are added up, so that the rounding error of a long row's sum does not grow with its length.
    template <class T, class Body>
    static TRAINSTEP_INLINE void for_each_block(std::size_t n, Body body) {
        constexpr std::size_t block = 64 * kWidth<T>;
        for (std::size_t first = 0; first < n; first += block) body(first, least(block, n - first));
    }

    // What a target t has of the loss for each unit of it, at a prediction log p. One difference, for the two cancel near p = t.
    template <class T>
    static TRAINSTEP_INLINE Vec<T> surprise(Vec<T> t, Vec<T> log_p) {
        if constexpr (information == Information::wanted)
            return log(t) - log_p;
        else
            return -log_p;
    }

    template <class T>
    static TRAINSTEP_INLINE void from_label(const LossRows<T>& a, std::size_t row, const T* e, T shift, T inverse, T log_sum) {
        const T* x = a.pred + row * a.columns;
        const std::size_t label = std::size_t(a.target.labels[row]);
        a.loss[row] = log_sum - (x[label] - shift);
        if (a.correct) a.correct[row] = log_sum == log_sum && first_of(x, a.columns, shift) == label;
        if (!a.dpred) return;
        T* dx = a.dpred + row * a.columns;
        const Vec<T> share = set1<T>(inverse), scale = set1<T>(a.scale);
        IVec<T> lane = lane_index<T>() - iset1<T>(typename VecTraits<T>::lane(label));  // 0 at the label
        for_each_vector<T>(a.columns, [&](std::size_t j, auto part) __attribute__((always_inline)) {
            const Vec<T> y = get<T>(e + j, part) * share;
            put<T>(dx + j, part, lane == IVec<T>{} ? y - scale : y);
            lane += iset1<T>(kWidth<T>);
        });
    }

    template <bool weighted, class T>
    static TRAINSTEP_INLINE void from_target(const LossRows<T>& a, std::size_t row, const T* e, T shift, T inverse, T log_sum) {
        const std::size_t n = a.columns;
        const T *x = a.pred + row * n, *class_weight = a.options.class_weight;
        const RowTarget<T> target(a, row);
        const Vec<T> weight = set1<T>(weighted && a.weight ? a.weight[row] : T(1));
        const auto q_of = [&](Vec<T> t, std::size_t j, auto part) __attribute__((always_inline)) {
            if constexpr (weighted) {
                t = smoothed(a, t) * weight;
                if (class_weight) t = t * get<T>(class_weight + j, part);
            }
            return t;
        };
        Vec<T> loss = zero<T>(), mass = zero<T>();
        for_each_block<T>(n, [&](std::size_t first, std::size_t count) __attribute__((always_inline)) {
            Vec<T> part_of_loss = zero<T>(), part_of_mass = zero<T>();
            for_each_vector<T>(count, [&](std::size_t at, auto part) __attribute__((always_inline)) {
                const std::size_t j = first + at;
                const Vec<T> t = target.at(j, part), q = or_else<T>(q_of(t, j, part), part, zero<T>());
                const Vec<T> log_p = (get<T>(x + j, part) - set1<T>(shift)) - set1<T>(log_sum);
                part_of_mass = part_of_mass + q;
                part_of_loss = q == zero<T>() ? part_of_loss : part_of_loss + q * surprise<T>(t, log_p);
            });
            loss = loss + part_of_loss, mass = mass + part_of_mass;
        });
        a.loss[row] = log_sum == log_sum ? reduce_add<T>(loss) : log_sum;
        if (a.correct) a.correct[row] = log_sum == log_sum && first_of(x, n, shift) == target.best(n);
        if (!a.dpred) return;
        T* dx = a.dpred + row * n;
        const Vec<T> share = set1<T>(inverse * reduce_add<T>(mass)), scale = set1<T>(a.scale);
        for_each_vector<T>(n, [&](std::size_t j, auto part) __attribute__((always_inline)) {
            put<T>(dx + j, part, get<T>(e + j, part) * share - scale * q_of(target.at(j, part), j, part));
        });
    }
};

struct softmax_cross_entropy : softmax_rows<Information::none> {};  // loss = -sum_j t_j log softmax(x)_j;  dx = softmax(x) - t

// loss = sum_j t_j (log t_j - log softmax(x)_j), the cross-entropy less the target's own;  dx = softmax(x) - t
struct kl_divergence : softmax_rows<Information::wanted> {};

// loss = -sum_j t_j log x_j;  dx = -t / x. A t of 0 takes no part, whatever x is (NaN shows); t > 0 at x = 0 is an infinite loss.
struct categorical_cross_entropy {
    template <class T>
    static void run(const LossRows<T>& rows) {
        const LossRows<T> a = rows;
        const std::size_t n = a.columns;
        for (std::size_t r = 0; r < a.rows; ++r) {
            const T *x = a.pred + r * n, weight = a.weight ? a.weight[r] : T(1);
            const RowTarget<T> target(a, r);
            const Vec<T> scale = set1<T>(a.scale * weight);
            Vec<T> total = zero<T>();
            for_each_vector<T>(n, [&](std::size_t j, auto part) __attribute__((always_inline)) {
                const Vec<T> p = get<T>(x + j, part), t = target.at(j, part), none = p == p ? zero<T>() : p;
                const IVec<T> absent = t == zero<T>();
                total = total - or_else<T>(absent ? none : t * log(p), part, zero<T>());
                if (a.dpred) put<T>(a.dpred + r * n + j, part, absent ? none : -scale * (t / p));
            });
            const T loss = reduce_add<T>(total);
            a.loss[r] = weight * loss;
            if (a.correct) a.correct[r] = loss == loss && first_of(x, n, row_max(x, n)) == target.best(n);
        }
    }
};

// --- over elements -----------------------------------------------------------------------------------------------------------

// Formula::loss(x, t, options) and, with `scale` times weight, Formula::gradient(scale, x, t, options) of an element;
// Formula::right where a prediction is right or wrong.
template <class Formula>
struct over_elements {
    template <class T>
    static void run(const LossRows<T>& rows) {
        rows.columns == 1 ? run_column(rows) : run_rows(rows);
    }

  private:
    template <class T>
    static TRAINSTEP_INLINE Vec<T> right(Vec<T> x, Vec<T> t) {
        if constexpr (requires { Formula::right(x, t); })
            return Formula::right(x, t) ? set1<T>(T(1)) : zero<T>();
        else
            return zero<T>();
    }

    template <class T>
    static void run_column(const LossRows<T>& of) {
        const LossRows<T> a = of;
        for_each_vector<T>(a.rows, [&](std::size_t r, auto part) __attribute__((always_inline)) {
            const Vec<T> x = get<T>(a.pred + r, part), t = get<T>(a.target.values + r, part);
            const Vec<T> weight = a.weight ? get<T>(a.weight + r, part) : set1<T>(T(1));
            put<T>(a.loss + r, part, weight * Formula::loss(x, t, a.options));
            if (a.dpred) put<T>(a.dpred + r, part, Formula::gradient(weight * a.scale, x, t, a.options));
            if (a.correct) {
                const Vec<T> ones = right<T>(x, t);
                for (std::size_t i = 0; i < kWidth<T> && r + i < a.rows; ++i) a.correct[r + i] = std::int32_t(ones[i]);
            }
        });
    }

    template <class T>
    static void run_rows(const LossRows<T>& of) {
        const LossRows<T> a = of;
        const std::size_t n = a.columns;
        constexpr std::size_t block = 64 * kWidth<T>;  // added up by itself: so the rounding error does not grow with the row
        for (std::size_t r = 0; r < a.rows; ++r) {
            const T *x_row = a.pred + r * n, *t_row = a.target.values + r * n, weight = a.weight ? a.weight[r] : T(1);
            const Vec<T> scale = set1<T>(a.scale * weight);
            Vec<T> total = zero<T>(), ones = zero<T>();
            for (std::size_t first = 0; first < n; first += block) {
                Vec<T> sum = zero<T>();
                for_each_vector<T>(least(block, n - first), [&](std::size_t i, auto part) __attribute__((always_inline)) {
                    const std::size_t j = first + i;
                    const Vec<T> x = get<T>(x_row + j, part), t = get<T>(t_row + j, part);
                    sum = sum + or_else<T>(Formula::loss(x, t, a.options), part, zero<T>());
                    if (a.dpred) put<T>(a.dpred + r * n + j, part, Formula::gradient(scale, x, t, a.options));
                    if (a.correct) ones = ones + or_else<T>(right<T>(x, t), part, zero<T>());
                });
                total = total + sum;
            }
            a.loss[r] = weight * reduce_add<T>(total);
            if (a.correct) a.correct[r] = std::int32_t(reduce_add<T>(ones));
        }
    }
};

struct squared_error {  // (x - t)^2;  2 (x - t)
    template <class V, class O>
    static TRAINSTEP_INLINE V loss(V x, V t, const O&) {
        return (x - t) * (x - t);
    }
    template <class V, class O>
    static TRAINSTEP_INLINE V gradient(V scale, V x, V t, const O&) {
        return (scale + scale) * (x - t);
    }
};
struct mse : over_elements<squared_error> {};

struct absolute_error {  // |x - t|;  sign(x - t), 0 at 0
    template <class V, class O>
    static TRAINSTEP_INLINE V loss(V x, V t, const O&) {
        return abs(x - t);
    }
    template <class T, class V>
    static TRAINSTEP_INLINE V gradient(V scale, V x, V t, const LossOptions<T>&) {
        return scale * sign<T>(x - t);
    }
};
struct mae : over_elements<absolute_error> {};

// (x - t)^2 / 2 up to |x - t| = delta, delta (|x - t| - delta / 2) beyond;  x - t, cut off at +-delta. Huber, Robust estimation of
// a location parameter (1964), with PyTorch's factor.
struct huber_error {
    template <class T, class V>
    static TRAINSTEP_INLINE V loss(V x, V t, const LossOptions<T>& o) {
        const V e = x - t, size = abs(e), delta = set1<T>(o.delta), half = set1<T>(T(0.5));
        return size <= delta ? (half * e) * e : delta * (size - half * delta);
    }
    template <class T, class V>
    static TRAINSTEP_INLINE V gradient(V scale, V x, V t, const LossOptions<T>& o) {
        return scale * max(set1<T>(-o.delta), min(set1<T>(o.delta), x - t));
    }
};
struct huber : over_elements<huber_error> {};

struct hinge_margin {  // max(0, 1 - t x);  -t where that is above 0, else 0
    template <class T, class V>
    static TRAINSTEP_INLINE V loss(V x, V t, const LossOptions<T>&) {
        return max(zero<T>(), set1<T>(T(1)) - t * x);
    }
    template <class T, class V>
    static TRAINSTEP_INLINE V gradient(V scale, V x, V t, const LossOptions<T>&) {
        const V margin = set1<T>(T(1)) - t * x;
        return margin <= zero<T>() ? zero<T>() : (margin == margin ? -scale * t : margin);
    }
    template <class V>
    static TRAINSTEP_INLINE auto right(V x, V t) {
        return ((x > V{}) == (t > V{})) & (x == x);
    }
};
struct hinge : over_elements<hinge_margin> {};

// log(1 + exp(-|x|)) + |x| u, u = 1 - t for x > 0 and t elsewhere, which is max(x, 0) - x t + log(1 + exp(-|x|)) without a
// difference of large numbers (0 at x = inf, t = 1);  sigmoid(x) - t = u - sigmoid(-|x|) for x > 0, minus that elsewhere.
struct logistic_error {
    template <class T, class V>
    static TRAINSTEP_INLINE V loss(V x, V t, const LossOptions<T>&) {
        const V u = rest<T>(x, t);
        return log1p_to_1<T>(exp_below_max<T>(-abs(x))) + (u == zero<T>() ? zero<T>() : abs(x) * u);
    }
    template <class T, class V>
    static TRAINSTEP_INLINE V gradient(V scale, V x, V t, const LossOptions<T>&) {
        const V e = exp_below_max<T>(-abs(x)), d = rest<T>(x, t) - e / (T(1) + e);
        return scale * (x > zero<T>() ? d : -d);
    }
    template <class V>
    static TRAINSTEP_INLINE auto right(V x, V t) {
        return ((x > V{}) == (t + t > V{} + 1)) & (x == x);
    }

  private:
    template <class T, class V>
    static TRAINSTEP_INLINE V rest(V x, V t) {
        return x > zero<T>() ? T(1) - t : t;
    }
};
struct sigmoid_binary_cross_entropy : over_elements<logistic_error> {};

struct poisson_error {  // exp(x) - t x, with 0 x = 0, and infinite where exp(x) is;  exp(x) - t
    template <class T, class V>
    static TRAINSTEP_INLINE V loss(V x, V t, const LossOptions<T>&) {
        const V rate = exp(x);
        return ((t == zero<T>()) | (rate == set1<T>(T(__builtin_inf())))) ? rate : rate - t * x;
    }
    template <class T, class V>
    static TRAINSTEP_INLINE V gradient(V scale, V x, V t, const LossOptions<T>&) {
        return scale * (exp(x) - t);
    }
};
struct poisson_nll : over_elements<poisson_error> {};

}  // namespace trainstep::TRAINSTEP_ISA::losses
#endif
