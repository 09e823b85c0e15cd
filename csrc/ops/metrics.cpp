#include "ops/metrics.h"

#include <algorithm>
#include <limits>

#include "ops/losses.h"
#include "runtime/isa.h"
#include "runtime/parallel.h"

namespace trainstep {

namespace {

constexpr std::size_t kRows = 0, kWeight = 1, kHead = 2;
constexpr std::size_t kOfClass = 4;
constexpr std::size_t kOfColumn = 5;  // squares, magnitudes, means, scatters, origins, as ErrorColumns has them
// Rows whose errors are added up at once, whatever the number of threads: few, so that the rounding error of a sum does not grow
// with the batch.
constexpr std::size_t kRowsAtOnce = 128;
// One thread's time for an element of a row, and for the row itself (reasoned from the losses').
constexpr double kNsPerScore = 0.3, kNsPerRow = 8, kNsPerError = 1.5;

// The classes of a batch's rows, in three arrays of `room`.
template <class T>
ClassRows<T> classes_of(std::vector<std::int64_t>& room, const T* pred, const Target<T>& target, std::size_t rows,
                        std::size_t columns, T middle) {
    if (room.size() < 3 * rows) room.resize(3 * rows);
    const ClassRows<T> a{room.data(), room.data() + rows, room.data() + 2 * rows, pred, target, rows, columns, middle};
    const auto kernel = kernels().of<T>().metric_classes;
    parallel_for(rows, 64, kNsPerRow + kNsPerScore * double(columns),
                 [&](std::size_t begin, std::size_t end) { kernel(a.part(begin, end)); });
    return a;
}

bool is_of_each_class(Metric metric) { return metric == Metric::precision || metric == Metric::recall || metric == Metric::f1; }

// 0 where there is nothing to divide by, as in a class that was never predicted.
double ratio(Metric metric, double hits, double predicted, double wanted) {
    if (metric == Metric::precision) return mean_of(hits, predicted);
    if (metric == Metric::recall) return mean_of(hits, wanted);
    return mean_of(2 * hits, predicted + wanted);
}

}  // namespace

template <class T>
MetricSums<T>::MetricSums(std::vector<MetricSetting> metrics, std::size_t columns, T middle)
    : metrics_(std::move(metrics)), columns_(columns), classes_(columns == 1 ? 2 : columns), middle_(middle) {
    std::size_t size = kHead;
    const auto place = [&size](std::size_t& at, std::size_t length) {
        if (at == 0) at = size, size += length;
    };
    for (const MetricSetting& m : metrics_) {
        within_at_.push_back(0);
        looks_at_classes_ = looks_at_classes_ || of(m.metric) == MetricOf::classes;
        if (of(m.metric) == MetricOf::numbers)
            place(errors_at_, kOfColumn * columns);
        else if (is_of_each_class(m.metric))
            place(classes_at_, kOfClass * classes_);
        else
            place(within_at_.back(), 1);
    }
    sums.assign(size, 0.0);
}

template <class T>
void MetricSums<T>::add(const T* pred, const Target<T>& target, const T* weight, std::size_t rows) {
    double total = double(rows);
    if (weight) {
        total = 0;
        for (std::size_t r = 0; r < rows; ++r) total += double(weight[r]);
    }
    if (looks_at_classes_) add_classes(pred, target, weight, rows);
    if (errors_at_ > 0) add_errors(pred, target.values, weight, rows);  // for which sums[kWeight] is that of the rows before
    sums[kRows] += double(rows), sums[kWeight] += total;
}

template <class T>
void MetricSums<T>::add_classes(const T* pred, const Target<T>& target, const T* weight, std::size_t rows) {
    const ClassRows<T> a = classes_of(rows_, pred, target, rows, columns_, middle_);
    for (std::size_t m = 0; m < metrics_.size(); ++m) {
        if (within_at_[m] == 0) continue;
        double& within = sums[within_at_[m]];
        for (std::size_t r = 0; r < rows; ++r)
            if (a.rank[r] < metrics_[m].k) within += weight ? double(weight[r]) : 1;
    }
    if (classes_at_ == 0) return;
    double* const table = sums.data() + classes_at_;
    for (std::size_t r = 0; r < rows; ++r) {
        const double w = weight ? double(weight[r]) : 1;
        double* const wanted = table + kOfClass * std::size_t(a.wanted[r]);
        wanted[2] += w, wanted[3] += 1;
        if (a.predicted[r] < 0) continue;
        double* const predicted = table + kOfClass * std::size_t(a.predicted[r]);
        predicted[1] += w, predicted[3] += 1;
        if (predicted == wanted) wanted[0] += w;
    }
}

// Blocks of rows by themselves, and then one after the other into the sums: the mean and the scatter of two sets of rows make those
// of both. Chan, Golub & LeVeque, Algorithms for computing the sample variance (1983), equations 2.1a and b, with weights for
// counts.
template <class T>
void MetricSums<T>::add_errors(const T* pred, const T* target, const T* weight, std::size_t rows) {
    const std::size_t columns = columns_, blocks = (rows + kRowsAtOnce - 1) / kRowsAtOnce, each = 4 * columns;
    if (blocks_.size() < blocks * each) blocks_.resize(blocks * each);
    double *const to = blocks_.data(), *const squares = sums.data() + errors_at_, *const magnitudes = squares + columns,
                  *const means = magnitudes + columns, *const scatters = means + columns, *const origins = scatters + columns;
    for (std::size_t j = 0; sums[kRows] == 0 && j < columns; ++j) origins[j] = double(target[j]);
    const auto kernel = kernels().of<T>().metric_errors;
    parallel_for(blocks, 1, kNsPerError * double(std::min(rows, kRowsAtOnce) * columns), [=](std::size_t begin, std::size_t end) {
        for (std::size_t b = begin; b < end; ++b) {
            const std::size_t first = b * kRowsAtOnce, n = std::min(kRowsAtOnce, rows - first);
            double* const at = to + b * each;
            kernel({at, at + columns, at + 2 * columns, at + 3 * columns, origins, pred + first * columns, target + first * columns,
                    weight ? weight + first : nullptr, n, columns});
        }
    });
    double before = sums[kWeight];
    for (std::size_t b = 0; b < blocks; ++b) {
        const std::size_t first = b * kRowsAtOnce, n = std::min(kRowsAtOnce, rows - first);
        double own = double(n);
        if (weight) {
            own = 0;
            for (std::size_t r = first; r < first + n; ++r) own += double(weight[r]);
        }
        const double all = before + own, share = own > 0 ? own / all : 0;
        const double* const from = to + b * each;
        for (std::size_t j = 0; j < columns; ++j) {
            const double apart = from[2 * columns + j] - means[j];
            squares[j] += from[j], magnitudes[j] += from[columns + j];
            scatters[j] += from[3 * columns + j] + (before > 0 ? apart * apart * before * share : 0);
            means[j] = before > 0 ? means[j] + apart * share : from[2 * columns + j];
        }
        before = all;
    }
}

template <class T>
typename MetricSums<T>::OfClass MetricSums<T>::of_class(std::size_t c) const {
    const double* const at = sums.data() + classes_at_ + kOfClass * c;
    return {at[0], at[1], at[2], at[3]};
}

template <class T>
std::vector<double> MetricSums<T>::of_classes(std::size_t metric) const {
    std::vector<double> values;
    for (std::size_t c = 0; c < classes_; ++c) {
        const OfClass n = of_class(c);
        values.push_back(ratio(metrics_[metric].metric, n.hits, n.predicted, n.wanted));
    }
    return values;
}

template <class T>
double MetricSums<T>::value(std::size_t metric) const {
    const MetricSetting& m = metrics_[metric];
    const double weight = sums[kWeight], elements = weight * double(columns_);
    const auto errors = [this](std::size_t kind) {
        const auto first = sums.begin() + std::ptrdiff_t(errors_at_ + kind * columns_);
        double total = 0;
        for (auto at = first; at != first + std::ptrdiff_t(columns_); ++at) total += *at;
        return total;
    };
    if (m.metric == Metric::mse) return mean_of(errors(0), elements);
    if (m.metric == Metric::mae) return mean_of(errors(1), elements);
    if (m.metric == Metric::r2) return r2();
    if (!is_of_each_class(m.metric)) return mean_of(sums[within_at_[metric]], weight);
    if (m.average == Average::binary) return of_classes(metric)[1];
    OfClass all{};
    double total = 0, of_all = 0;
    for (std::size_t c = 0; c < classes_; ++c) {
        const OfClass n = of_class(c);
        const double own = m.average == Average::weighted ? n.wanted : n.seen > 0;
        total += own * ratio(m.metric, n.hits, n.predicted, n.wanted), of_all += own;
        all.hits += n.hits, all.predicted += n.predicted, all.wanted += n.wanted;
    }
    return m.average == Average::micro ? ratio(m.metric, all.hits, all.predicted, all.wanted) : mean_of(total, of_all);
}

// The mean over columns of 1 - squares / scatter. Where all targets are equal: 1 where they are met, 0 where they are not. NaN of
// less than two rows.
template <class T>
double MetricSums<T>::r2() const {
    if (sums[kRows] < 2 || !(sums[kWeight] > 0)) return std::numeric_limits<double>::quiet_NaN();
    const double *const squares = sums.data() + errors_at_, *const scatters = squares + 3 * columns_;
    double total = 0;
    for (std::size_t j = 0; j < columns_; ++j)
        total += scatters[j] != 0 ? 1 - squares[j] / scatters[j] : squares[j] == 0 ? 1 : 0 * squares[j];
    return total / double(columns_);
}

template <class T>
void confusion_matrix(double* counts, const T* pred, const Target<T>& target, const T* weight, std::size_t rows,
                      std::size_t columns, T middle) {
    std::vector<std::int64_t> room;
    const ClassRows<T> a = classes_of(room, pred, target, rows, columns, middle);
    const std::size_t classes = columns == 1 ? 2 : columns;
    for (std::size_t r = 0; r < rows; ++r)
        if (a.predicted[r] >= 0)
            counts[std::size_t(a.wanted[r]) * classes + std::size_t(a.predicted[r])] += weight ? double(weight[r]) : 1;
}

template class MetricSums<float>;
template class MetricSums<double>;
template void confusion_matrix(double*, const float*, const Target<float>&, const float*, std::size_t, std::size_t, float);
template void confusion_matrix(double*, const double*, const Target<double>&, const double*, std::size_t, std::size_t, double);

}  // namespace trainstep
