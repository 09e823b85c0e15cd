// trainstep.metrics: numbers that say how good predictions are.
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>

#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "bindings/metric_values.h"
#include "ops/metrics.h"

namespace trainstep {

MetricSetting metric_setting(const py::tuple& setting) {
    const auto metric = Metric(name_index("metrics", "name", kMetricNames, setting[0]));
    const char* const me = kMetricNames[int(metric)].data();
    const auto k = py::cast<std::int64_t>(setting[1]);
    return {metric, k, Average(name_index(me, "average", kAverageNames, setting[2]))};
}

void check_metric(const char* function, const MetricSetting& setting, std::size_t columns) {
    const std::size_t classes = columns == 1 ? 2 : columns;
    if (setting.metric == Metric::top_k_accuracy && setting.k > std::int64_t(classes))
        value_error({function, "k"},
                    "is " + std::to_string(setting.k) + ", expected at most the " + std::to_string(classes) + " classes");
    if (of(setting.metric) == MetricOf::classes && setting.average == Average::binary && classes != 2)
        value_error({function, "average"}, "is 'binary' with " + std::to_string(classes) + " classes, expected two classes");
}

void check_metrics(const std::vector<MetricSetting>& metrics, std::optional<Loss> loss, std::size_t columns) {
    const Site site{"Trainer", "metrics"};
    for (const MetricSetting& m : metrics) {
        const std::string has = "has " + std::string(kMetricNames[int(m.metric)]) + ", ";
        if (!loss) {
            if (of(m.metric) != of(metrics[0].metric))
                value_error(site, has + (of(m.metric) == MetricOf::classes ? "of classes" : "of numbers") + ", beside " +
                                      std::string(kMetricNames[int(metrics[0].metric)]) +
                                      ", expected those of classes or those of numbers with a loss of one's own");
        } else {
            const std::string with = "with " + std::string(kLossNames[int(*loss)]);
            const LossFacts& is = facts(*loss);
            if (of(m.metric) == MetricOf::numbers) {
                if (is.target != TargetKind::numbers) value_error(site, has + "of numbers, expected none of those " + with);
            } else if (is.over == LossOver::elements && is.has_accuracy()) {
                if (columns != 1)
                    value_error(site, has + "of one class a row, expected none of those " + with + " of " +
                                          std::to_string(columns) + " columns");
            } else if (columns == 1 || is.target == TargetKind::counts) {
                value_error(site, has + "of classes, expected none of those " + with + (columns == 1 ? " of one column" : ""));
            }
        }
        check_metric("Trainer", m, columns);
    }
}

template <class T>
Target<T> metric_target(Site site, MetricOf of, py::handle y_in, std::size_t rows, std::size_t columns, py::object& keep_alive) {
    py::array y = as_array(site, y_in);
    Target<T> target;
    if (of == MetricOf::classes && columns > 1 && y.ndim() == 1) {
        keep_alive = labels(site, y, py::ssize_t(rows), py::ssize_t(columns));
        target.labels = data<std::int64_t>(py::reinterpret_borrow<py::array>(keep_alive));
        return target;
    }
    if (y.ndim() == 1 && columns == 1) y = y.reshape({py::ssize_t(-1), py::ssize_t(1)});
    if (y.ndim() != 2 || std::size_t(y.shape(0)) != rows || std::size_t(y.shape(1)) != columns)
        value_error(site, "has shape " + shape_text(y) + ", expected (" + std::to_string(rows) + ", " + std::to_string(columns) +
                              ")" + (of == MetricOf::classes || columns == 1 ? " or (" + std::to_string(rows) + ",)" : ""));
    target.values = static_cast<const T*>(cast_table<T>(site, y, columns, keep_alive).data);
    check_target(site, target.values, rows * columns,
                 of == MetricOf::numbers ? TargetKind::numbers
                 : columns == 1          ? TargetKind::fractions
                                         : TargetKind::probabilities);
    return target;
}
template Target<float> metric_target(Site, MetricOf, py::handle, std::size_t, std::size_t, py::object&);
template Target<double> metric_target(Site, MetricOf, py::handle, std::size_t, std::size_t, py::object&);

namespace {

// Predictions as (rows, columns), their target and the weights of the rows.
template <class T>
struct Scored {
    py::array pred;
    py::object y;
    std::optional<py::array> weight;
    std::size_t rows, columns;
    Target<T> target;

    Scored(const char* me, MetricOf of, const py::array& pred_any, py::handle y_in, py::handle weight_in)
        : pred(contiguous<T>({me, "pred"}, pred_any)) {
        if (pred.ndim() == 1) pred = pred.reshape({py::ssize_t(-1), py::ssize_t(1)});
        check_shape({me, "pred"}, pred, {-1, -1});
        rows = std::size_t(pred.shape(0)), columns = std::size_t(pred.shape(1));
        target = metric_target<T>({me, "y"}, of, y_in, rows, columns, y);
        if (!weight_in.is_none()) weight = weights<T>({me, "sample_weight"}, weight_in, py::ssize_t(rows), true);
    }
    const T* weights_or_null() const { return weight ? data<T>(*weight) : nullptr; }
};

// A number, or one for each class where the average is none.
py::object metric_op(const py::tuple& setting_in, py::handle pred_in, py::handle y, py::handle sample_weight) {
    const MetricSetting setting = metric_setting(setting_in);
    const char* const me = kMetricNames[int(setting.metric)].data();
    const py::array pred_any = as_array({me, "pred"}, pred_in);
    return dispatch_float({me, "pred"}, pred_any, [&](auto tag) -> py::object {
        using T = decltype(tag);
        const Scored<T> given(me, of(setting.metric), pred_any, y, sample_weight);
        check_metric(me, setting, given.columns);
        MetricSums<T> sums({setting}, given.columns, kMiddleOfFractions<T>);
        const T* const pred = data<T>(given.pred);
        without_gil_if(given.pred.size() > kKeepGil, [&] { sums.add(pred, given.target, given.weights_or_null(), given.rows); });
        if (setting.average != Average::none) return py::float_(sums.value(0));
        const std::vector<double> each = sums.of_classes(0);
        return py::array_t<double>(py::ssize_t(each.size()), each.data());
    });
}

// (classes, classes): whole numbers where there are no weights.
py::array confusion_matrix_op(py::handle pred_in, py::handle y, py::handle sample_weight, py::handle out) {
    const char* const me = "confusion_matrix";
    const py::array pred_any = as_array({me, "pred"}, pred_in);
    return dispatch_float({me, "pred"}, pred_any, [&](auto tag) -> py::array {
        using T = decltype(tag);
        const Scored<T> given(me, MetricOf::classes, pred_any, y, sample_weight);
        const auto classes = py::ssize_t(std::max<std::size_t>(given.columns, 2));
        const Site site{me, "out"};
        const py::array y_taken = py::reinterpret_borrow<py::array>(given.y);
        py::array result = given.weight ? output<double>(site, out, {classes, classes}, {&given.pred, &y_taken})
                                        : output<std::int64_t>(site, out, {classes, classes}, {&given.pred, &y_taken});
        std::vector<double> counts(std::size_t(classes * classes));
        double* const to = counts.data();
        const T* const pred = data<T>(given.pred);
        without_gil_if(given.pred.size() > kKeepGil, [&] {
            confusion_matrix(to, pred, given.target, given.weights_or_null(), given.rows, given.columns, kMiddleOfFractions<T>);
        });
        if (given.weight)
            std::copy(counts.begin(), counts.end(), mutable_data<double>(result));
        else
            std::transform(counts.begin(), counts.end(), mutable_data<std::int64_t>(result),
                           [](double count) { return std::int64_t(count); });
        return result;
    });
}

void check_metrics_op(const std::vector<py::tuple>& settings, py::handle loss, std::size_t columns) {
    std::vector<MetricSetting> metrics;
    for (const py::tuple& setting : settings) metrics.push_back(metric_setting(setting));
    std::optional<Loss> known;
    if (!loss.is_none()) known = Loss(name_index("Trainer", "loss", kLossNames, loss));
    check_metrics(metrics, known, columns);
}

}  // namespace

void bind_metrics(py::module_& m) {
    m.attr("metrics") = names_tuple(kMetricNames);
    m.attr("metric_averages") = names_tuple(kAverageNames);
    m.def("metric", metric_op, py::arg("setting"), py::arg("pred"), py::arg("y"), py::arg("sample_weight") = py::none());
    m.def("check_metrics", check_metrics_op, py::arg("settings"), py::arg("loss"), py::arg("columns"));
    m.def("confusion_matrix", confusion_matrix_op, py::arg("pred"), py::arg("y"), py::arg("sample_weight") = py::none(),
          py::arg("out") = py::none());
}

}  // namespace trainstep
