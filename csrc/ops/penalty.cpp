#include "ops/penalty.h"

#include <algorithm>

#include "runtime/isa.h"
#include "runtime/parallel.h"

namespace trainstep {

namespace {

constexpr std::size_t kPiece = 16384;  // elements that are added up at once, whatever the number of threads
constexpr double kNsPerElement = 0.1;  // bound by memory
template <class T>
constexpr std::size_t kColumnGrain = 128 / sizeof(T);

// run(a's row, b's row, elements) for every row; for all of them at once where they lie end to end.
template <class A, class B, class F>
void for_rows(Rows<A> a, Rows<B> b, std::size_t rows, std::size_t columns, F run) {
    if (a.stride == columns && b.stride == columns)
        parallel_for(rows * columns, kPiece, kNsPerElement,
                     [=](std::size_t begin, std::size_t end) { run(a.at + begin, b.at + begin, end - begin); });
    else
        parallel_for(rows, 1, kNsPerElement * double(columns), [=](std::size_t begin, std::size_t end) {
            for (std::size_t r = begin; r < end; ++r) run(a.at + r * a.stride, b.at + r * b.stride, columns);
        });
}

}  // namespace

template <class T>
double penalty(const T* w, std::size_t n, double l1, double l2, std::vector<double>& sums) {
    const auto kernel = kernels().of<T>().penalty_sum;
    const std::size_t pieces = (n + kPiece - 1) / kPiece;
    if (sums.size() < pieces) sums.resize(pieces);
    double* const to = sums.data();
    parallel_for(pieces, 1, kNsPerElement * double(std::min(n, kPiece)), [=](std::size_t begin, std::size_t end) {
        for (std::size_t p = begin; p < end; ++p) to[p] = kernel(w + p * kPiece, std::min(kPiece, n - p * kPiece), l1, l2);
    });
    double total = 0;
    for (std::size_t p = 0; p < pieces; ++p) total += to[p];
    return total;
}

template <class T>
void add_penalty_slope(Rows<T> g, Rows<const T> w, std::size_t rows, std::size_t columns, double l1, double l2) {
    const auto kernel = kernels().of<T>().add_penalty_slope;
    for_rows(g, w, rows, columns, [=](T* to, const T* of, std::size_t n) { kernel(to, of, n, T(l1), T(l2)); });
}

template <class T>
void keep(Rows<T> x, Rows<const T> mask, std::size_t rows, std::size_t columns) {
    for_rows(x, mask, rows, columns, kernels().of<T>().keep);
}

template <class T>
void limit_units(T* w, std::size_t rows, std::size_t columns, double max_norm) {
    const auto kernel = kernels().of<T>().limit_units;
    parallel_for(columns, kColumnGrain<T>, kNsPerElement * double(rows),
                 [=](std::size_t begin, std::size_t end) { kernel(w, rows, columns, begin, end, max_norm); });
}

#define TRAINSTEP_INSTANTIATE(T)                                                                       \
    template double penalty(const T*, std::size_t, double, double, std::vector<double>&);              \
    template void add_penalty_slope(Rows<T>, Rows<const T>, std::size_t, std::size_t, double, double); \
    template void keep(Rows<T>, Rows<const T>, std::size_t, std::size_t);                              \
    template void limit_units(T*, std::size_t, std::size_t, double);
TRAINSTEP_INSTANTIATE(float)
TRAINSTEP_INSTANTIATE(double)
#undef TRAINSTEP_INSTANTIATE

}  // namespace trainstep
