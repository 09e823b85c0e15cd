#include "ops/normalize.h"

#include <algorithm>

#include "runtime/isa.h"
#include "runtime/parallel.h"

namespace trainstep {

namespace {

// On one core of a Zen 4 with AVX-512, 128 x 512 in float32.
constexpr double kNsPerElementOfRows = 0.25, kNsPerElementOfRowsBackward = 0.35, kNsPerElement = 0.2, kNsPerElementBackward = 0.3,
                 kNsPerElementOfSums = 0.1;

// Columns are cut where two vectors of any level end, so that no share ends in a partial one.
template <class T>
constexpr std::size_t kColumnGrain = 128 / sizeof(T);

}  // namespace

template <class T>
void layer_norm(T* y, T* mean, T* inv_std, T* normalized, const T* x, const T* gamma, const T* beta, std::size_t rows,
                std::size_t columns, double eps) {
    const auto kernel = kernels().of<T>().layer_norm;
    parallel_for(rows, 1, kNsPerElementOfRows * double(columns), [=](std::size_t begin, std::size_t end) {
        const auto rows_of = [=](T* statistic) { return statistic ? statistic + begin : nullptr; };
        kernel(y + begin * columns, rows_of(mean), rows_of(inv_std), normalized ? normalized + begin * columns : nullptr,
               x + begin * columns, gamma, beta, end - begin, columns, eps);
    });
}

// A thread adds up the columns of its own rows, while they are in its cache: fetching another's from there costs more than all else
// (the layer forward and backward, 128 x 512 in float32, two threads that share the columns: 42 us, and so 24). Sums are of
// kSumRows rows; where a thread would have more than one and a half times its share of them, columns and then rows are shared by
// themselves (64 x 4096, two threads: 61 us, and on one 110).
template <class T>
void layer_norm_backward(const LayerNormBackward<T>& a, double* sums) {
    const Kernels<T>& k = kernels().of<T>();
    run_team(threads_for(kNsPerElementOfRowsBackward * double(a.rows) * double(a.columns)), [&](Team team) {
        const std::size_t parts = std::size_t(team.parts), blocks = (a.rows + kSumRows - 1) / kSumRows;
        const bool in_sums = 2 * parts * std::min(a.rows, (blocks + parts - 1) / parts * kSumRows) <= 3 * a.rows;
        const Range c = share_of(a.columns, kColumnGrain<T>, team), r = share_of(a.rows, in_sums ? kSumRows : 1, team);
        if (!in_sums && c.begin < c.end) k.layer_norm_parameters(a, c.begin, c.end);
        if (!in_sums) team.barrier();  // dx may take the place of dy
        if (r.begin < r.end) k.layer_norm_backward(a, r.begin, r.end, in_sums ? sums : nullptr);
        if (in_sums) team.barrier();
        if (in_sums && c.begin < c.end) k.layer_norm_parameters_of_sums(a, sums, c.begin, c.end);
    });
}

// Columns are shared where they are added up, and rows where they are written: what two threads write does not lie side by side,
// where a processor that fetches ahead would take it from the other (128 x 512 by columns: 35 us on two threads, 15 on one; so:
// 16).
template <class T>
void batch_norm(const BatchNorm<T>& batch, bool training, std::size_t columns) {
    const Kernels<T>& k = kernels().of<T>();
    run_team(threads_for(kNsPerElement * double(batch.rows) * double(columns)), [&](Team team) {
        const Range c = share_of(columns, kColumnGrain<T>, team), r = share_of(batch.rows, 1, team);
        if (c.begin < c.end) (training ? k.batch_statistics : k.running_statistics)(batch, c.begin, c.end);
        team.barrier();
        if (r.begin < r.end) k.batch_norm(batch, r.begin, r.end, 0, columns);
    });
}

template <class T>
void batch_norm_backward(const BatchNormBackward<T>& batch, std::size_t columns) {
    const Kernels<T>& k = kernels().of<T>();
    run_team(threads_for(kNsPerElementBackward * double(batch.rows) * double(columns)), [&](Team team) {
        const Range c = share_of(columns, kColumnGrain<T>, team), r = share_of(batch.rows, 1, team);
        if (c.begin < c.end) k.batch_norm_backward_parameters(batch, c.begin, c.end);
        team.barrier();
        if (r.begin < r.end) k.batch_norm_backward(batch, r.begin, r.end, 0, columns);
    });
}

template <class T>
void layer_norm_backward_input(const LayerNormBackward<T>& a) {
    parallel_for(a.rows, 1, kNsPerElementOfRows * double(a.columns),
                 [&](std::size_t begin, std::size_t end) { kernels().of<T>().layer_norm_backward(a, begin, end, nullptr); });
}

namespace {
// body(begin, end) for shares of some columns.
template <class T, class F>
void for_columns(Range some, double ns_per_column, F body) {
    parallel_for(some.end - some.begin, kColumnGrain<T>, ns_per_column,
                 [=](std::size_t begin, std::size_t end) { body(some.begin + begin, some.begin + end); });
}
}  // namespace

template <class T>
void layer_norm_backward_parameters(const LayerNormBackward<T>& a, Range some) {
    for_columns<T>(some, kNsPerElementOfSums * double(a.rows),
                   [&](std::size_t begin, std::size_t end) { kernels().of<T>().layer_norm_parameters(a, begin, end); });
}

template <class T>
void batch_statistics(const BatchNorm<T>& batch, Range columns) {
    for_columns<T>(columns, kNsPerElementOfSums * double(batch.rows),
                   [&](std::size_t begin, std::size_t end) { kernels().of<T>().batch_statistics(batch, begin, end); });
}

template <class T>
void running_statistics(const BatchNorm<T>& batch, Range columns) {
    kernels().of<T>().running_statistics(batch, columns.begin, columns.end);
}

template <class T>
void batch_norm_rows(const BatchNorm<T>& batch, std::size_t columns) {
    parallel_for(batch.rows, 1, kNsPerElement * double(columns),
                 [&](std::size_t begin, std::size_t end) { kernels().of<T>().batch_norm(batch, begin, end, 0, columns); });
}

template <class T>
void batch_norm_backward_parameters(const BatchNormBackward<T>& batch, Range columns) {
    for_columns<T>(columns, kNsPerElementOfSums * double(batch.rows), [&](std::size_t begin, std::size_t end) {
        kernels().of<T>().batch_norm_backward_parameters(batch, begin, end);
    });
}

template <class T>
void batch_norm_backward_rows(const BatchNormBackward<T>& batch, std::size_t rows, std::size_t columns) {
    parallel_for(rows, 1, kNsPerElement * double(columns),
                 [&](std::size_t begin, std::size_t end) { kernels().of<T>().batch_norm_backward(batch, begin, end, 0, columns); });
}

#define TRAINSTEP_INSTANTIATE(T)                                                                              \
    template void layer_norm(T*, T*, T*, T*, const T*, const T*, const T*, std::size_t, std::size_t, double); \
    template void layer_norm_backward(const LayerNormBackward<T>&, double*);                                  \
    template void layer_norm_backward_input(const LayerNormBackward<T>&);                                     \
    template void layer_norm_backward_parameters(const LayerNormBackward<T>&, Range);                         \
    template void batch_norm(const BatchNorm<T>&, bool, std::size_t);                                         \
    template void batch_norm_backward(const BatchNormBackward<T>&, std::size_t);                              \
    template void batch_statistics(const BatchNorm<T>&, Range);                                               \
    template void running_statistics(const BatchNorm<T>&, Range);                                             \
    template void batch_norm_rows(const BatchNorm<T>&, std::size_t);                                          \
    template void batch_norm_backward_parameters(const BatchNormBackward<T>&, Range);                         \
    template void batch_norm_backward_rows(const BatchNormBackward<T>&, std::size_t, std::size_t);
TRAINSTEP_INSTANTIATE(float)
TRAINSTEP_INSTANTIATE(double)
#undef TRAINSTEP_INSTANTIATE

}  // namespace trainstep
