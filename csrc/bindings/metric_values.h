// What metrics are given: settings, and targets of a batch of predictions.
#pragma once

#include <pybind11/numpy.h>

#include <optional>
#include <vector>

#include "bindings/arrays.h"
#include "ops/metrics.h"

namespace trainstep {

// From (name, k, average), checked in Python as far as numbers and names of averages go.
MetricSetting metric_setting(const py::tuple& setting);

// ValueError where a metric asks for more classes, or others, than `columns` columns of predictions have.
void check_metric(const char* function, const MetricSetting& setting, std::size_t columns);

// y of rows x columns predictions, checked: classes as indices or as rows whose largest tells them (of one column 0 or 1), or
// numbers.
template <class T>
Target<T> metric_target(Site site, MetricOf of, py::handle y, std::size_t rows, std::size_t columns, py::object& keep_alive);

// ValueError where a trainer's metrics do not fit its loss, or one of the caller's (no loss) or each other.
void check_metrics(const std::vector<MetricSetting>& metrics, std::optional<Loss> loss, std::size_t columns);

// Of one column, a target above it is the second class of 0 and 1.
template <class T>
inline constexpr T kMiddleOfFractions = T(0.5);

}  // namespace trainstep
