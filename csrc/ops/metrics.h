// Metrics of predictions that come in batches: sums that are kept from batch to batch, and the numbers that they make.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/table.h"

namespace trainstep {

// What precision, recall and F1 of all classes are made one number by. none: they stay one for each class.
#define TRAINSTEP_AVERAGES(X) \
    X(macro)                  \
    X(micro)                  \
    X(weighted)               \
    X(binary)                 \
    X(none)
TRAINSTEP_FAMILY(Average, TRAINSTEP_AVERAGES)

struct MetricSetting {
    Metric metric;
    std::int64_t k = 1;                // top_k_accuracy
    Average average = Average::macro;  // precision, recall and F1
};

template <class T>
class MetricSums {
  public:
    // columns: of a row of predictions. middle: of one column, a target above it is the second class.
    MetricSums(std::vector<MetricSetting> metrics, std::size_t columns, T middle);

    // The sums are added up in the order of the rows, or of blocks of them: the same bits for any number of threads.
    void add(const T* pred, const Target<T>& target, const T* weight, std::size_t rows);

    // All that is kept of the rows so far. Its length is that of the beginning, when all are 0.
    std::vector<double> sums;
    void clear() { sums.assign(sums.size(), 0.0); }

    std::size_t count() const { return metrics_.size(); }
    double value(std::size_t metric) const;
    // Of precision, recall or F1: one for each class.
    std::vector<double> of_classes(std::size_t metric) const;

  private:
    // Weights of the rows of a class: that are predicted rightly, that are predicted to be of it, that are; and how many there are
    // of the last two, which no weight makes 0.
    struct OfClass {
        double hits, predicted, wanted, seen;
    };
    OfClass of_class(std::size_t c) const;
    void add_classes(const T* pred, const Target<T>& target, const T* weight, std::size_t rows);
    void add_errors(const T* pred, const T* target, const T* weight, std::size_t rows);
    double r2() const;

    std::vector<MetricSetting> metrics_;
    std::size_t columns_, classes_;
    T middle_;
    bool looks_at_classes_ = false;
    // Where the parts of `sums` begin, behind the number of rows and the sum of their weights: one a metric of its own for those
    // that look at the first k classes, OfClass for each class, of each column its errors and spread.
    std::vector<std::size_t> within_at_;
    std::size_t classes_at_ = 0, errors_at_ = 0;  // 0: not wanted
    std::vector<std::int64_t> rows_;
    std::vector<double> blocks_;
};

// counts[wanted * classes + predicted] += weight, over the rows whose class can be told; classes is 2 for one column.
template <class T>
void confusion_matrix(double* counts, const T* pred, const Target<T>& target, const T* weight, std::size_t rows,
                      std::size_t columns, T middle);

}  // namespace trainstep
