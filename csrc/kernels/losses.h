// Losses: the one list, and one struct per formula. A loss takes the network's last output and the target, and gives the loss of
// each row and the gradient of their sum; the mean is taken by the caller, who knows the whole batch.
#pragma once

#include <cstdint>

#include "kernels/lists.h"

#define TRAINSTEP_LOSSES(X) X(softmax_cross_entropy) X(mse)

namespace trainstep {
TRAINSTEP_FAMILY(Loss, TRAINSTEP_LOSSES)

// The target of rows x columns predictions: either class indices (one a row) or an array of the predictions' shape.
template <class T>
struct Target {
    const std::int64_t* labels = nullptr;
    const T* values = nullptr;
};

// Losses of a block of rows. loss and correct hold one number a row.
template <class T>
struct LossRows {
    T* loss;                // (rows)
    T* dpred;               // (rows, columns), or null
    std::int32_t* correct;  // (rows), or null: 1 where the first largest prediction is the first largest target
    const T* pred;          // (rows, columns)
    Target<T> target;
    std::size_t rows, columns;
    T scale;  // factor of dpred: 1/batch for the mean over rows, and so on

    // The rows [begin, end) of these.
    LossRows part(std::size_t begin, std::size_t end) const {
        LossRows p = *this;
        p.loss += begin, p.pred += begin * columns, p.rows = end - begin;
        if (dpred) p.dpred += begin * columns;
        if (correct) p.correct += begin;
        if (target.labels) p.target.labels += begin;
        if (target.values) p.target.values += begin * columns;
        return p;
    }
};

}  // namespace trainstep

#ifdef TRAINSTEP_ISA
#include "kernels/transpose.h"
#include "kernels/vmath.h"

namespace trainstep::TRAINSTEP_ISA::losses {

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

// loss = log(sum_j exp(x_j - max)) - (x_label - max), or -sum_j p_j log softmax(x)_j for probability rows p;
// dx = softmax(x) * sum(p) - p, with p one-hot for a label. Bishop, Pattern Recognition and Machine Learning (2006), 4.108
// and 4.109.
struct softmax_cross_entropy {
    template <class T>
    static void run(const LossRows<T>& rows) {
        const LossRows<T> a = rows;  // a copy, which no store through a T* can seem to change
        a.columns <= kNarrow ? run_narrow(a) : run_wide(a);
    }

  private:
    // Rows of so few columns go kWidth at a time, each in a lane of its own: nothing is added up or compared across a vector, and
    // no lane idles. 64 rows of 10 columns on one core of a Zen 4: 0.55 us, and 0.95 row by row.
    static constexpr std::size_t kNarrow = 32;

    template <class T>
    static void run_narrow(const LossRows<T>& a) {
        constexpr std::size_t width = kWidth<T>;
        alignas(64) T x[kNarrow][width], e[kNarrow][width], p[kNarrow][width];  // [j]: of column j
        for (std::size_t r = 0; r < a.rows; r += width) {
            const std::size_t rows = a.rows - r < width ? a.rows - r : width;
            const auto columns_of = [&](T(*to)[width], const T* from) __attribute__((always_inline)) {
                for (std::size_t j = 0; j < a.columns; j += width)
                    transpose_in<T>(to[j], width, from + r * a.columns + j, a.columns, rows, least(width, a.columns - j));
            };
            columns_of(x, a.pred);
            Vec<T> most = set1<T>(-T(__builtin_inf())), sum = zero<T>();
            for (std::size_t j = 0; j < a.columns; ++j) most = max(load(x[j]), most);  // NaN is passed over
            for (std::size_t j = 0; j < a.columns; ++j) {
                const Vec<T> y = exp(load(x[j]) - most);
                store<T>(e[j], y);
                sum = sum + y;
            }
            const Vec<T> log_sum = log(sum);
            Vec<T> loss;
            IVec<T> wanted;  // the first largest target
            if (a.target.values) {
                columns_of(p, a.target.values);
                Vec<T> mass = zero<T>(), most_wanted = set1<T>(-T(__builtin_inf()));
                loss = zero<T>();
                for (std::size_t j = 0; j < a.columns; ++j) {
                    const Vec<T> pj = load(p[j]);
                    mass = mass + pj;
                    loss = pj == zero<T>() ? loss : loss - pj * ((load(x[j]) - most) - log_sum);  // 0 * log 0 = 0
                    most_wanted = max(pj, most_wanted);
                }
                loss = log_sum == log_sum ? loss : log_sum;
                wanted = first_equal(p, a.columns, most_wanted);
                const Vec<T> share = set1<T>(a.scale) / sum * mass;
                for (std::size_t j = 0; j < a.columns; ++j) store<T>(e[j], load(e[j]) * share - a.scale * load(p[j]));
            } else {
                alignas(64) typename VecTraits<T>::lane label[width];
                for (std::size_t i = 0; i < width; ++i) label[i] = i < rows ? a.target.labels[r + i] : 0;
                __builtin_memcpy(&wanted, label, sizeof wanted);
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
            const Tail<T> counted{std::ptrdiff_t(rows)};
            store_partial(a.loss + r, counted, loss);
            if (a.correct) {
                const IVec<T> right = (first_equal(x, a.columns, most) == wanted) & (log_sum == log_sum);
                for (std::size_t i = 0; i < rows; ++i) a.correct[r + i] = right[i] != 0;
            }
            for (std::size_t j = 0; a.dpred && j < a.columns; j += width)
                transpose_out<T>(a.dpred + r * a.columns + j, a.columns, e[j], width, rows, least(width, a.columns - j));
        }
    }

    // The first column that equals `value`, lane by lane.
    template <class T>
    static TRAINSTEP_INLINE IVec<T> first_equal(const T (*x)[kWidth<T>], std::size_t columns, Vec<T> value) {
        IVec<T> first = iset1<T>(-1);
        for (std::size_t j = columns; j-- > 0;) first = load(x[j]) == value ? iset1<T>(typename VecTraits<T>::lane(j)) : first;
        return first;
    }

    template <class T>
    static void run_wide(const LossRows<T>& a) {
        constexpr std::size_t block = 64;  // rows whose sums share one call of log
        T sum[block], shift[block], log_sum[block], inverse[block];
        for (std::size_t r0 = 0; r0 < a.rows; r0 += block) {
            const std::size_t n = a.rows - r0 < block ? a.rows - r0 : block;
            const auto exps = [&](std::size_t r) { return a.dpred ? a.dpred + (r0 + r) * a.columns : nullptr; };
            for (std::size_t r = 0; r < n; ++r) exponentials(exps(r), a.pred + (r0 + r) * a.columns, a.columns, shift[r], sum[r]);
            map<T>(log_sum, sum, n, [](Vec<T> v) __attribute__((always_inline)) { return log(v); });
            map<T>(inverse, sum, n, [&](Vec<T> v) __attribute__((always_inline)) { return a.scale / v; });
            for (std::size_t r = 0; r < n; ++r) {
                if (a.target.values)
                    from_probabilities(a, r0 + r, exps(r), shift[r], inverse[r], log_sum[r]);
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
        for_each_vector<T>(columns, [&](std::size_t j, auto part) __attribute__((always_inline)) {
            const Vec<T> y = exp(get<T>(x + j, part) - most);
            if (e) put<T>(e + j, part, y);
            total = total + or_else<T>(y, part, zero<T>());
        });
        sum = reduce_add<T>(total);
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

    template <class T>
    static TRAINSTEP_INLINE void from_probabilities(const LossRows<T>& a, std::size_t row, const T* e, T shift, T inverse,
                                                    T log_sum) {
        const std::size_t n = a.columns;
        const T *x = a.pred + row * n, *p = a.target.values + row * n;
        T loss = 0, mass = 0;
        for (std::size_t j = 0; j < n; ++j) {
            mass += p[j];
            if (p[j] != T(0)) loss -= p[j] * ((x[j] - shift) - log_sum);  // 0 * log 0 = 0
        }
        a.loss[row] = log_sum == log_sum ? loss : log_sum;
        if (a.correct) a.correct[row] = log_sum == log_sum && first_of(x, n, shift) == first_of(p, n, row_max(p, n));
        if (!a.dpred) return;
        T* dx = a.dpred + row * n;
        const Vec<T> share = set1<T>(inverse * mass), scale = set1<T>(a.scale);
        for_each_vector<T>(n, [&](std::size_t j, auto part) __attribute__((always_inline)) {
            put<T>(dx + j, part, get<T>(e + j, part) * share - scale * get<T>(p + j, part));
        });
    }
};

// loss = sum_j (x_j - t_j)^2;  dx = 2 (x - t)
struct mse {
    template <class T>
    static void run(const LossRows<T>& a) {
        const std::size_t n = a.columns;
        const T twice = 2 * a.scale;
        for (std::size_t r = 0; r < a.rows; ++r) {
            const T *x = a.pred + r * n, *t = a.target.values + r * n;
            Vec<T> total = zero<T>();
            for_each_vector<T>(n, [&](std::size_t j, auto part) __attribute__((always_inline)) {
                const Vec<T> error = get<T>(x + j, part) - get<T>(t + j, part);
                total = fma(error, error, total);
                if (a.dpred) put<T>(a.dpred + r * n + j, part, twice * error);
            });
            a.loss[r] = reduce_add<T>(total);
        }
    }
};

}  // namespace trainstep::TRAINSTEP_ISA::losses
#endif
