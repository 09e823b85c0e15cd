// Normalisation: layer_norm over each row, batch_norm over each column of a batch; each with the backward beside it.
//
// A variance is that of the distances from a number near the mean: squares of distances have digits left where those of x have
// none. A mean that is many times the spread has too few digits in T; what they miss (mean_low) is taken off x as well.
//
// Rows are read from end to end. A sum down the columns goes over kGroup rows at a time, in T, and from there into an array in
// double precision, one for each kSumRows rows, so that its error does not grow with the batch. Down one vector of columns after
// the other instead, the passes took up to three times as long (y of 128 x 512 in inference, float32, one core of a Zen 4: 18.6 us,
// and row by row 8.8).
#pragma once

#include <cstddef>

namespace trainstep {

// Batch normalisation of columns of x, (rows, columns); rows of x and y begin x_stride and y_stride elements apart.
template <class T>
struct BatchNorm {
    T* y;
    std::size_t y_stride;
    T *mean, *mean_low, *inv_std;   // (columns): mean + mean_low is the mean, inv_std = 1 / sqrt(variance + eps)
    T *running_mean, *running_var;  // (columns), or null
    const T* x;
    std::size_t x_stride;
    const T *gamma, *beta;  // (columns), or null: 1 and 0
    std::size_t rows;
    double momentum, eps;
};

// Backward of layer normalisation of the rows of x, (rows, columns). mean may be null: then x is x^ = (x - mean) * inv_std, which
// has digits left where x and mean have none.
template <class T>
struct LayerNormBackward {
    T *dx, *dgamma, *dbeta;
    const T *dy, *x, *mean, *inv_std;
    const T* gamma;  // or null: 1
    std::size_t rows, columns;
};
// Rows whose sums down the columns are added up by themselves; and what a row of such sums takes, in whole vectors of any level.
inline constexpr std::size_t kSumRows = 64;
constexpr std::size_t padded_wide(std::size_t columns) { return (columns + 15) / 16 * 16; }

// The backward of batch normalisation. of_batch: mean and inv_std are those of these rows, and move with x.
template <class T>
struct BatchNormBackward {
    T* dx;
    std::size_t dx_stride;
    T *dgamma, *dbeta;  // (columns)
    const T* dy;
    std::size_t dy_stride;
    const T* x;
    std::size_t x_stride;
    const T *mean, *mean_low, *inv_std;  // mean_low may be null: 0
    const T* gamma;                      // or null: 1
    std::size_t rows;
    bool of_batch;
};

}  // namespace trainstep

#ifdef TRAINSTEP_ISA
#include "kernels/wide.h"

namespace trainstep::TRAINSTEP_ISA::normalize {

inline constexpr std::size_t kGroup = 8;  // rows
inline constexpr std::size_t kColumns =
    1024;  // whose sums or factors are at hand; with 256 dx of 1024 x 1024 takes 1.4 times as long
inline constexpr std::size_t kRowBlock = 2048;  // elements of a row that are added up in T

// What distances are taken from: not what is no number, so that an infinity or NaN comes out as its sum does.
template <class T>
TRAINSTEP_INLINE Vec<T> finite_or_0(Vec<T> x) {
    return x - x == zero<T>() ? x : zero<T>();
}

// A variance that rounding has left below 0 is 0; NaN stays.
template <class T>
TRAINSTEP_INLINE Wide<T> at_least_0(Wide<T> variance) {
    return each<T>([](F64 v) __attribute__((always_inline)) { return max(zero<double>(), v); }, variance);
}
template <class T>
TRAINSTEP_INLINE Wide<T> inverse_std(Wide<T> variance, double eps) {
    return each<T>([=](F64 v) __attribute__((always_inline)) { return 1.0 / sqrt(v + eps); }, at_least_0<T>(variance));
}

// Two sums at once.
template <class T>
struct Sums {
    Vec<T> first, second;
};

// Two sums over the elements of a row, in double precision: add(sums, j, part) adds the terms of one vector.
struct RowSums {
    double first, second;
};
template <class T, class Add>
TRAINSTEP_INLINE RowSums row_sums(std::size_t columns, Add add) {
    RowSums total{0, 0};
    for (std::size_t j0 = 0; j0 < columns; j0 += kRowBlock) {
        Sums<T> even{}, odd{};
        for_each_strip<T>(j0, least(columns, j0 + kRowBlock),
                          [&](std::size_t j, auto part, auto strip) __attribute__((always_inline)) {
                              add(even, j, part);
                              if constexpr (decltype(strip)::count == 2) add(odd, j + kWidth<T>, part);
                          });
        total.first += reduce_add(wide(even.first) + wide(odd.first));
        total.second += reduce_add(wide(even.second) + wide(odd.second));
    }
    return total;
}

// Adds the two sums down some rows (up to kSumRows of them), in groups of kGroup, of `columns` columns from n0 on, to what first
// and second have, or with `fresh` to nothing: add(sums, r, j, part) adds the terms of row r and one vector of columns from j on.
template <class T, class Add>
TRAINSTEP_INLINE void add_rows(double* first, double* second, bool fresh, std::size_t r0, std::size_t r1, std::size_t n0,
                               std::size_t columns, Add add) {
    for (; r0 < r1; r0 += kGroup, fresh = false) {
        const std::size_t count = least(r1 - r0, kGroup);
        for_each_vector<T>(columns, [&](std::size_t i, auto part) __attribute__((always_inline)) {
            Sums<T> sums{};
            if (count == kGroup) {
#pragma GCC unroll 8
                for (std::size_t r = 0; r < kGroup; ++r) add(sums, r0 + r, n0 + i, part);
            } else {
                for (std::size_t r = 0; r < count; ++r) add(sums, r0 + r, n0 + i, part);
            }
            Wide<T> a = wide(sums.first), b = wide(sums.second);
            if (!fresh) a = a + load_wide<T>(first + i), b = b + load_wide<T>(second + i);
            store_wide<T>(first + i, a), store_wide<T>(second + i, b);
        });
    }
}

// total = (or with `more` +=) part, for both of two sums of some columns.
template <class T>
TRAINSTEP_INLINE Wide<T> total_of(const double* total, const double* part, bool more) {
    return more ? load_wide<T>(total) + load_wide<T>(part) : load_wide<T>(part);
}

// Two sums down each of the columns [n0, n1), of terms as add_rows has them: those of each kSumRows rows are added up by
// themselves. deliver(j, part, first, second) gets them.
template <class T, class Add, class Deliver>
TRAINSTEP_INLINE void column_sums(std::size_t rows, std::size_t n0, std::size_t n1, Add add, Deliver deliver) {
    alignas(64) double first[kColumns], second[kColumns], part_first[kColumns], part_second[kColumns];
    for (; n0 < n1; n0 += kColumns) {
        const std::size_t columns = least(n1 - n0, kColumns), start = n0;
        for (std::size_t r0 = 0; r0 < rows; r0 += kSumRows) {
            add_rows<T>(part_first, part_second, true, r0, least(rows, r0 + kSumRows), start, columns, add);
            for_each_vector<T>(columns, [&](std::size_t i, auto) __attribute__((always_inline)) {
                store_wide<T>(first + i, total_of<T>(first + i, part_first + i, r0 > 0));
                store_wide<T>(second + i, total_of<T>(second + i, part_second + i, r0 > 0));
            });
        }
        for_each_vector<T>(columns, [&](std::size_t i, auto part) __attribute__((always_inline)) {
            deliver(start + i, part, load_wide<T>(first + i), load_wide<T>(second + i));
        });
    }
}

// --- layer_norm --------------------------------------------------------------------------------------------------------------

// y = (x - mean) / sqrt(variance + eps) * gamma + beta for each row, with the row's own mean and variance (divided by columns).
// gamma and beta (columns), or null: 1 and 0; mean and inv_std (rows) and normalized = x^ = (x - mean) * inv_std (rows, columns),
// or null where they are not wanted.
template <class T>
void layer_norm(T* y, T* mean, T* inv_std, T* normalized, const T* x, const T* gamma, const T* beta, std::size_t rows,
                std::size_t columns, double eps) {
    const double n = double(columns);
    const std::size_t some = least(columns, 64);
    for (std::size_t i = 0; i < rows; ++i, x += columns, y += columns) {
        // First a number near the mean, from the distances to the first element; then mean and variance from those to it.
        const auto distances_from = [=](T from, std::size_t count) __attribute__((always_inline)) {
            const Vec<T> center = set1<T>(from);
            return row_sums<T>(count, [=](Sums<T>& sums, std::size_t j, auto part) __attribute__((always_inline)) {
                const Vec<T> d = or_else<T>(get<T>(x + j, part) - center, part, zero<T>());
                sums.first = sums.first + d;
                sums.second = fma(d, d, sums.second);
            });
        };
        const T first = *x - *x == T(0) ? *x : T(0), about = T(double(first) + distances_from(first, some).first / double(some));
        const T near = about - about == T(0) ? about : T(0);
        const RowSums sums = distances_from(near, columns);
        const double shift = sums.first / n, variance = (sums.second - sums.first * shift) / n;
        const double middle = double(near) + shift, inverse = 1 / __builtin_sqrt((variance < 0 ? 0 : variance) + eps);
        const T rounded_mean = T(middle);
        if (mean) mean[i] = rounded_mean;
        if (inv_std) inv_std[i] = T(inverse);
        const Vec<T> center = set1<T>(rounded_mean), scale = set1<T>(T(inverse)),
                     low = set1<T>(T((double(rounded_mean) - middle) * inverse));
        for_each_vector<T>(columns, [=](std::size_t j, auto part) __attribute__((always_inline)) {
            Vec<T> v = fma(get<T>(x + j, part) - center, scale, low);
            if (normalized) put<T>(normalized + i * columns + j, part, v);
            if (gamma) v = v * get<T>(gamma + j, part);
            if (beta) v = v + get<T>(beta + j, part);
            put<T>(y + j, part, v);
        });
    }
}

// The terms of dgamma = sum over the rows of dy * x^ and of dbeta = that of dy.
template <class T>
TRAINSTEP_INLINE auto layer_norm_terms(const LayerNormBackward<T>& a) {
    return [=](Sums<T>& sums, std::size_t r, std::size_t j, auto part) __attribute__((always_inline)) {
        const std::size_t at = r * a.columns + j;
        const Vec<T> d = get<T>(a.dy + at, part), x = get<T>(a.x + at, part);
        const Vec<T> normalized = a.mean ? (x - set1<T>(a.mean[r])) * set1<T>(a.inv_std[r]) : x;
        sums.first = fma(d, normalized, sums.first);
        sums.second = sums.second + d;
    };
}

// For the rows [r0, r1), with g = dy * gamma: dx = inv_std * (g - mean of g - x^ * mean of (g * x^)), the means over the row. The
// rows' part of the sums that are dgamma and dbeta goes into `sums`, two times padded_wide(columns) for each kSumRows rows from row
// 0 on, where r0 is a multiple of kSumRows; or nowhere, if it is null.
template <class T>
void layer_norm_backward(const LayerNormBackward<T>& call, std::size_t r0, std::size_t r1, double* sums) {
    const LayerNormBackward<T> a = call;  // a copy, which no store can change
    const std::size_t columns = a.columns, apart = padded_wide(columns);
    for (; r0 < r1; r0 += kGroup) {
        const std::size_t end = least(r1, r0 + kGroup);
        if (sums) {
            double* const first = sums + r0 / kSumRows * 2 * apart;
            add_rows<T>(first, first + apart, r0 % kSumRows == 0, r0, end, 0, columns, layer_norm_terms(a));
        }
        for (std::size_t i = r0; i < end; ++i) {
            const T *const dy = a.dy + i * columns, *const x = a.x + i * columns;
            T* const dx = a.dx + i * columns;
            const Vec<T> center = set1<T>(a.mean ? a.mean[i] : T(0)), factor = set1<T>(a.inv_std[i]);
            const auto g = [=](std::size_t j, auto part) __attribute__((always_inline)) {
                return a.gamma ? get<T>(dy + j, part) * get<T>(a.gamma + j, part) : get<T>(dy + j, part);
            };
            const RowSums row = row_sums<T>(columns, [=](Sums<T>& to, std::size_t j, auto part) __attribute__((always_inline)) {
                const Vec<T> v = g(j, part);  // 0 behind the last element
                to.first = to.first + v;
                to.second = fma(v, get<T>(x + j, part) - center, to.second);
            });
            const double n = double(columns), scale = a.mean ? double(a.inv_std[i]) : 1;
            const Vec<T> g_mean = set1<T>(T(row.first / n)), slope = set1<T>(T(row.second / n * scale * scale));
            for_each_vector<T>(columns, [=](std::size_t j, auto part) __attribute__((always_inline)) {
                put<T>(dx + j, part, fma(center - get<T>(x + j, part), slope, g(j, part) - g_mean) * factor);
            });
        }
    }
}

// dgamma and dbeta of the columns [n0, n1) from such sums of all rows; and without them.
template <class T>
void layer_norm_parameters_of_sums(const LayerNormBackward<T>& a, const double* sums, std::size_t n0, std::size_t n1) {
    const std::size_t apart = padded_wide(a.columns);
    T *const dgamma = a.dgamma, *const dbeta = a.dbeta;
    for_each_vector<T>(n1 - n0, [=, rows = a.rows](std::size_t i, auto part) __attribute__((always_inline)) {
        const double* at = sums + n0 + i;
        Wide<T> along = load_wide<T>(at), sum = load_wide<T>(at + apart);
        for (std::size_t r = kSumRows; r < rows; r += kSumRows) {
            at += 2 * apart;
            along = along + load_wide<T>(at), sum = sum + load_wide<T>(at + apart);
        }
        put<T>(dgamma + n0 + i, part, rounded(along));
        put<T>(dbeta + n0 + i, part, rounded(sum));
    });
}
template <class T>
void layer_norm_parameters(const LayerNormBackward<T>& call, std::size_t n0, std::size_t n1) {
    const LayerNormBackward<T> a = call;
    column_sums<T>(a.rows, n0, n1, layer_norm_terms(a),
                   [=](std::size_t j, auto part, Wide<T> along, Wide<T> sum) __attribute__((always_inline)) {
                       put<T>(a.dgamma + j, part, rounded(along));
                       put<T>(a.dbeta + j, part, rounded(sum));
                   });
}

// --- batch_norm --------------------------------------------------------------------------------------------------------------

// mean, mean_low and inv_std of the columns [n0, n1) from the rows of x; the variance is divided by their number. Running
// statistics move: running = (1 - momentum) * running + momentum * that of the batch, where the variance is divided by rows - 1. A
// batch of one row, which has none, leaves the running variance as it is.
template <class T>
void batch_statistics(const BatchNorm<T>& batch, std::size_t n0, std::size_t n1) {
    const BatchNorm<T> a = batch;  // a copy, which no store through a T* can seem to change
    // Distances are taken from the mean of the first rows, which is put where the mean will be.
    for_each_vector<T>(n1 - n0, [=](std::size_t i, auto part) __attribute__((always_inline)) {
        const T* row = a.x + n0 + i;
        const Vec<T> first = finite_or_0<T>(get<T>(row, part));
        Vec<T> sum = zero<T>();
        const std::size_t count = least(a.rows, kGroup);
        for (std::size_t r = 1; r < count; ++r) sum = sum + (get<T>(row + r * a.x_stride, part) - first);
        put<T>(a.mean + n0 + i, part, finite_or_0<T>(first + sum / set1<T>(T(count))));
    });
    const double n = double(a.rows);
    column_sums<T>(
        a.rows, n0, n1,
        [=](Sums<T>& sums, std::size_t r, std::size_t j, auto part) __attribute__((always_inline)) {
            const Vec<T> d = get<T>(a.x + r * a.x_stride + j, part) - get<T>(a.mean + j, part);
            sums.first = sums.first + d;
            sums.second = fma(d, d, sums.second);
        },
        [=](std::size_t j, auto part, Wide<T> sum, Wide<T> squares) __attribute__((always_inline)) {
            const Wide<T> shift = (1 / n) * sum, mean = wide(get<T>(a.mean + j, part)) + shift;
            const Wide<T> variance = (1 / n) * (squares - sum * shift);
            const Vec<T> rounded_mean = rounded(mean);
            put<T>(a.mean + j, part, rounded_mean);
            put<T>(a.mean_low + j, part, rounded(mean - wide(rounded_mean)));
            put<T>(a.inv_std + j, part, rounded(inverse_std<T>(variance, a.eps)));
            const auto move = [=](T* running, Wide<T> now) __attribute__((always_inline)) {
                put<T>(running + j, part, rounded((1 - a.momentum) * wide(get<T>(running + j, part)) + a.momentum * now));
            };
            if (a.running_mean) move(a.running_mean, mean);
            if (a.running_var && a.rows > 1) move(a.running_var, (n / (n - 1)) * at_least_0<T>(variance));
        });
}

// The same from the running statistics, which stay as they are.
template <class T>
void running_statistics(const BatchNorm<T>& batch, std::size_t n0, std::size_t n1) {
    const BatchNorm<T> a = batch;
    for_each_vector<T>(n1 - n0, [=](std::size_t i, auto part) __attribute__((always_inline)) {
        const std::size_t at = n0 + i;
        put<T>(a.mean + at, part, get<T>(a.running_mean + at, part));
        put<T>(a.mean_low + at, part, zero<T>());
        put<T>(a.inv_std + at, part, rounded(inverse_std<T>(wide(get<T>(a.running_var + at, part)), a.eps)));
    });
}

// y = (x - mean) * inv_std * gamma + beta for the rows [r0, r1) and the columns [n0, n1).
template <class T>
void batch_norm(const BatchNorm<T>& batch, std::size_t r0, std::size_t r1, std::size_t n0, std::size_t n1) {
    const BatchNorm<T> a = batch;
    alignas(64) T scales[kColumns], shifts[kColumns];
    for (; n0 < n1; n0 += kColumns) {
        const std::size_t columns = least(n1 - n0, kColumns);
        for_each_vector<T>(columns, [&](std::size_t i, auto part) __attribute__((always_inline)) {
            const std::size_t at = n0 + i;
            Vec<T> scale = get<T>(a.inv_std + at, part);
            if (a.gamma) scale = scale * get<T>(a.gamma + at, part);
            Vec<T> shift = -(get<T>(a.mean_low + at, part) * scale);
            if (a.beta) shift = shift + get<T>(a.beta + at, part);
            put<T>(scales + i, part, scale), put<T>(shifts + i, part, shift);
        });
        const T *x = a.x + r0 * a.x_stride + n0, *mean = a.mean + n0;
        T* y = a.y + r0 * a.y_stride + n0;
        for (std::size_t r = r0; r < r1; ++r, x += a.x_stride, y += a.y_stride)
            for_each_vector<T>(columns, [&](std::size_t i, auto part) __attribute__((always_inline)) {
                const Vec<T> distance = get<T>(x + i, part) - get<T>(mean + i, part);
                put<T>(y + i, part, fma(distance, get<T>(scales + i, part), get<T>(shifts + i, part)));
            });
    }
}

// dgamma = sum over the rows of dy * x^, dbeta = that of dy, with x^ = (x - mean) * inv_std, for the columns [n0, n1).
template <class T>
void batch_norm_backward_parameters(const BatchNormBackward<T>& batch, std::size_t n0, std::size_t n1) {
    const BatchNormBackward<T> a = batch;
    column_sums<T>(
        a.rows, n0, n1,
        [=](Sums<T>& sums, std::size_t r, std::size_t j, auto part) __attribute__((always_inline)) {
            const Vec<T> d = get<T>(a.dy + r * a.dy_stride + j, part);
            sums.first = fma(d, get<T>(a.x + r * a.x_stride + j, part) - get<T>(a.mean + j, part), sums.first);
            sums.second = sums.second + d;
        },
        [=](std::size_t j, auto part, Wide<T> along, Wide<T> sum) __attribute__((always_inline)) {
            const Wide<T> exact = a.mean_low ? along - wide(get<T>(a.mean_low + j, part)) * sum : along;
            put<T>(a.dgamma + j, part, rounded(exact * wide(get<T>(a.inv_std + j, part))));
            put<T>(a.dbeta + j, part, rounded(sum));
        });
}

// dx = gamma * inv_std * (dy - dbeta / rows - x^ * dgamma / rows) for statistics of the batch, which move with x; for others, which
// do not, dx = gamma * inv_std * dy. For the rows [r0, r1) and the columns [n0, n1), after batch_norm_backward_parameters.
template <class T>
void batch_norm_backward(const BatchNormBackward<T>& batch, std::size_t r0, std::size_t r1, std::size_t n0, std::size_t n1) {
    const BatchNormBackward<T> a = batch;
    alignas(64) T scales[kColumns], dy_means[kColumns], slopes[kColumns];
    for (; n0 < n1; n0 += kColumns) {
        const std::size_t columns = least(n1 - n0, kColumns);
        for_each_vector<T>(columns, [&](std::size_t i, auto part) __attribute__((always_inline)) {
            const std::size_t at = n0 + i;
            const Vec<T> inv_std = get<T>(a.inv_std + at, part), n = set1<T>(T(a.rows));
            put<T>(scales + i, part, a.gamma ? inv_std * get<T>(a.gamma + at, part) : inv_std);
            const Vec<T> slope = get<T>(a.dgamma + at, part) * inv_std / n, dy_mean = get<T>(a.dbeta + at, part) / n;
            put<T>(dy_means + i, part, a.mean_low ? dy_mean - get<T>(a.mean_low + at, part) * slope : dy_mean);
            put<T>(slopes + i, part, slope);
        });
        const T *dy = a.dy + r0 * a.dy_stride + n0, *x = a.x + r0 * a.x_stride + n0, *mean = a.mean + n0;
        T* dx = a.dx + r0 * a.dx_stride + n0;
        for (std::size_t r = r0; r < r1; ++r, dx += a.dx_stride, dy += a.dy_stride, x += a.x_stride)
            for_each_vector<T>(columns, [&](std::size_t i, auto part) __attribute__((always_inline)) {
                Vec<T> g = get<T>(dy + i, part);
                if (a.of_batch)
                    g = fma(get<T>(mean + i, part) - get<T>(x + i, part), get<T>(slopes + i, part), g - get<T>(dy_means + i, part));
                put<T>(dx + i, part, g * get<T>(scales + i, part));
            });
    }
}

}  // namespace trainstep::TRAINSTEP_ISA::normalize
#endif
