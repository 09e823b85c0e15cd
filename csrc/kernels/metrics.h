// Metrics: the one list, and the passes over a batch that they are made of. What comes of a pass is added up by ops/metrics.
#pragma once

#include <cstdint>

#include "kernels/losses.h"

// The name, and what a prediction and its target are.
#define TRAINSTEP_METRICS(X)   \
    X(accuracy, classes)       \
    X(top_k_accuracy, classes) \
    X(precision, classes)      \
    X(recall, classes)         \
    X(f1, classes)             \
    X(mse, numbers)            \
    X(mae, numbers)            \
    X(r2, numbers)

namespace trainstep {
TRAINSTEP_FAMILY(Metric, TRAINSTEP_METRICS)

enum class MetricOf { classes, numbers };
#define TRAINSTEP_METRIC_OF(name, of) MetricOf::of,
inline constexpr MetricOf kMetricOf[] = {TRAINSTEP_METRICS(TRAINSTEP_METRIC_OF)};
#undef TRAINSTEP_METRIC_OF
constexpr MetricOf of(Metric metric) { return kMetricOf[int(metric)]; }

// The classes of a block of rows. One column is the score of the second of two classes, where the first has 0.
template <class T>
struct ClassRows {
    std::int64_t *predicted, *wanted;  // (rows): the class of the first largest score, -1 where one is NaN, and the target's class
    std::int64_t* rank;  // (rows): how many classes come before the target's: those of larger scores, of equal ones the lower
    const T* pred;       // (rows, columns)
    Target<T> target;
    std::size_t rows, columns;
    T middle;  // of one column: a target above it is the second class

    ClassRows part(std::size_t begin, std::size_t end) const {
        ClassRows p = *this;
        p.predicted += begin, p.wanted += begin, p.rank += begin, p.pred += begin * columns, p.rows = end - begin;
        if (target.labels) p.target.labels += begin;
        if (target.values) p.target.values += begin * columns;
        return p;
    }
};

// Errors of a block of rows, column by column, and how the target spreads about its mean. Weighted.
template <class T>
struct ErrorColumns {
    double *squares, *magnitudes;  // (columns): the sums of w (x - t)^2 and w |x - t|
    double *means, *scatters;      // (columns): the mean of t - origin, and the sum of w (t - origin - mean)^2
    const double* origins;         // (columns)
    const T *pred, *target;        // (rows, columns)
    const T* weight;               // (rows), or null: 1 each
    std::size_t rows, columns;
};

}  // namespace trainstep

#ifdef TRAINSTEP_ISA
#include "kernels/wide.h"

namespace trainstep::TRAINSTEP_ISA::metrics {

// How many classes come before the wanted one in a row of n scores: those of larger scores, of equal ones the lower. -1 where a
// score is NaN.
template <class T>
TRAINSTEP_INLINE std::int64_t rank_of(const T* x, std::size_t n, std::int64_t wanted) {
    constexpr std::size_t block = 1 << 20;  // so that every T holds the count exactly
    using lane = typename VecTraits<T>::lane;
    const Vec<T> own = set1<T>(x[wanted]), one = set1<T>(T(1));
    std::int64_t rank = 0;
    for (std::size_t first = 0; first < n; first += block) {
        Vec<T> count = zero<T>();  // a lane is NaN from its first NaN on
        for_each_vector<T>(least(block, n - first), [&](std::size_t i, auto part) __attribute__((always_inline)) {
            const Vec<T> v = get<T>(x + first + i, part);
            const IVec<T> lower = lane_index<T>() + iset1<T>(lane(first + i)) < iset1<T>(lane(wanted));
            const Vec<T> before = ((v > own) | ((v == own) & lower)) ? one : zero<T>();
            count = or_else<T>(v == v ? count + before : v, part, count);
        });
        const T total = reduce_add<T>(count);
        if (total != total) return -1;
        rank += std::int64_t(total);
    }
    return rank;
}

template <class T>
TRAINSTEP_INLINE std::int64_t first_largest(const T* x, std::size_t n) {
    return std::int64_t(losses::first_of(x, n, losses::row_max(x, n)));
}

template <class T>
void classes(const ClassRows<T>& of) {
    const ClassRows<T> a = of;
    const std::size_t n = a.columns;
    for (std::size_t r = 0; r < a.rows; ++r) {
        const T* const x = a.pred + r * n;
        const T* const t = a.target.values ? a.target.values + r * n : nullptr;
        if (n == 1) {
            a.wanted[r] = t ? *t > a.middle : a.target.labels[r];
            a.predicted[r] = *x == *x ? *x > T(0) : -1;
            a.rank[r] = a.predicted[r] < 0 ? 2 : a.predicted[r] != a.wanted[r];
            continue;
        }
        a.wanted[r] = t ? first_largest(t, n) : a.target.labels[r];
        const std::int64_t rank = rank_of(x, n, a.wanted[r]);
        a.rank[r] = rank < 0 ? std::int64_t(n) : rank;
        a.predicted[r] = rank < 0 ? -1 : rank == 0 ? a.wanted[r] : first_largest(x, n);
    }
}

template <class T>
TRAINSTEP_INLINE void put_lanes(double* to, std::size_t n, Wide<T> v) {
    double lanes[kWidth<T>];
    store_wide<T>(lanes, v);
    for (std::size_t i = 0; i < least(n, kWidth<T>); ++i) to[i] = lanes[i];
}

// The scatter is taken in a pass of its own about the mean, and both of what the target differs by from some target: so its digits
// are kept however far from 0 it lies, and of equal targets the scatter is 0.
template <class T>
void errors(const ErrorColumns<T>& of) {
    const ErrorColumns<T> a = of;
    for_each_vector<T>(a.columns, [&](std::size_t j, auto part) __attribute__((always_inline)) {
        double lanes[kWidth<T>] = {};
        for (std::size_t i = 0; i < least(a.columns - j, kWidth<T>); ++i) lanes[i] = a.origins[j + i];
        const Wide<T> origin = load_wide<T>(lanes);
        Wide<T> squares{}, magnitudes{}, sum{}, scatter{};
        double total = 0;
        for (std::size_t r = 0; r < a.rows; ++r) {
            const double w = a.weight ? double(a.weight[r]) : 1;
            const Wide<T> t = wide(get<T>(a.target + r * a.columns + j, part));
            const Wide<T> e = wide(get<T>(a.pred + r * a.columns + j, part)) - t;
            squares = fma(w * e, e, squares);
            magnitudes = magnitudes + w * each<T>([](F64 x) __attribute__((always_inline)) { return abs(x); }, e);
            sum = sum + w * (t - origin);
            total += w;
        }
        const Wide<T> mean = (total > 0 ? 1 / total : 0) * sum;
        for (std::size_t r = 0; r < a.rows; ++r) {
            const Wide<T> d = (wide(get<T>(a.target + r * a.columns + j, part)) - origin) - mean;
            scatter = fma((a.weight ? double(a.weight[r]) : 1) * d, d, scatter);
        }
        put_lanes<T>(a.squares + j, a.columns - j, squares);
        put_lanes<T>(a.magnitudes + j, a.columns - j, magnitudes);
        put_lanes<T>(a.means + j, a.columns - j, mean);
        put_lanes<T>(a.scatters + j, a.columns - j, scatter);
    });
}

}  // namespace trainstep::TRAINSTEP_ISA::metrics
#endif
