// trainstep.ops: the formulas on arrays.
#include <algorithm>
#include <optional>

#include "bindings/activations.h"
#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "bindings/precisions.h"
#include "ops/dense.h"
#include "ops/elementwise.h"
#include "ops/losses.h"
#include "runtime/isa.h"

namespace trainstep {

namespace {

py::array dense_op(py::handle x_in, py::handle w_in, py::handle b_in, py::handle activation_in, py::handle out,
                   py::handle precision_in) {
    const char* me = "dense";
    const Activation f = activation_named(me, "activation", activation_in);
    const std::optional<MatmulPrecision> given = precision_named(me, precision_in);
    const py::array x_any = as_array({me, "x"}, x_in);
    return dispatch_float({me, "x"}, x_any, [&](auto tag) {
        using T = decltype(tag);
        const MatmulPrecision precision = precision_of_call<T>(me, given);
        const py::array x = contiguous<T>({me, "x"}, x_any), w = contiguous<T>({me, "w"}, w_in);
        check_shape({me, "x"}, x, {-1, -1});
        check_shape({me, "w"}, w, {-1, -1});
        const py::ssize_t batch = x.shape(0), in = x.shape(1), width = w.shape(1);
        if (w.shape(0) != in)
            value_error({me, "x"}, "has " + std::to_string(in) + " columns, w has " + std::to_string(w.shape(0)) + " rows");
        const bool has_bias = !b_in.is_none();
        const py::array b = has_bias ? contiguous<T>({me, "b"}, b_in) : x;
        if (has_bias) check_shape({me, "b"}, b, {width});
        const T* bias = has_bias ? data<T>(b) : nullptr;
        py::array y = output<T>({me, "out"}, out, {batch, width}, {&x, &w, &b});
        without_gil_if(batch * in * width > kKeepGil * 16, [&, to = mutable_data<T>(y)] {
            dense<T>({to, std::size_t(width)}, nullptr, {data<T>(x), std::size_t(in)}, data<T>(w), bias, f, std::size_t(batch),
                     std::size_t(in), std::size_t(width), {0, std::size_t(width)}, precision);
        });
        return y;
    });
}

py::tuple dense_backward_op(py::handle dy_in, py::handle x_in, py::handle w_in, py::handle y_in, py::handle activation_in,
                            bool need_dx, py::handle out, py::handle precision_in) {
    const char* me = "dense_backward";
    const Activation f = activation_named(me, "activation", activation_in);
    const std::optional<MatmulPrecision> given = precision_named(me, precision_in);
    const bool is_linear = f.kind == ActivationKind::identity;
    if (!is_linear && y_in.is_none())
        value_error({me, "y"},
                    "is None, expected " +
                        std::string(info(f.kind).of_input ? "what the activation was applied to" : "the output of dense") +
                        ": the derivative of " + std::string(kActivationKindNames[int(f.kind)]) + " is taken from it");
    const py::array dy_any = as_array({me, "dy"}, dy_in);
    py::handle dx_out = Py_None, dw_out = Py_None, db_out = Py_None;
    py::tuple outs;
    if (!out.is_none()) {
        if (!py::isinstance<py::tuple>(out) || py::len(out) != 3) type_error({me, "out"}, "must be a tuple (dx, dw, db)");
        outs = py::reinterpret_borrow<py::tuple>(out);
        dx_out = outs[0].ptr(), dw_out = outs[1].ptr(), db_out = outs[2].ptr();
    }
    return dispatch_float({me, "dy"}, dy_any, [&](auto tag) -> py::tuple {
        using T = decltype(tag);
        const MatmulPrecision precision = precision_of_call<T>(me, given);
        const py::array dy = contiguous<T>({me, "dy"}, dy_any), x = contiguous<T>({me, "x"}, x_in),
                        w = contiguous<T>({me, "w"}, w_in);
        check_shape({me, "x"}, x, {-1, -1});
        const py::ssize_t batch = x.shape(0), in = x.shape(1);
        check_shape({me, "w"}, w, {in, -1});
        const py::ssize_t width = w.shape(1);
        check_shape({me, "dy"}, dy, {batch, width});
        py::array y = dy;
        if (!is_linear) {
            y = contiguous<T>({me, "y"}, y_in);
            check_shape({me, "y"}, y, {batch, width});
        }
        py::array dw = output<T>({me, "out[1] (dw)"}, dw_out, {in, width}, {&dy, &x, &w, &y});
        py::array db = output<T>({me, "out[2] (db)"}, db_out, {width}, {&dy, &x, &w, &y, &dw});
        py::object dx_result = py::none();
        T* dx = nullptr;
        if (need_dx) {
            py::array a = output<T>({me, "out[0] (dx)"}, dx_out, {batch, in}, {&dy, &x, &w, &y, &dw, &db});
            dx = mutable_data<T>(a);
            dx_result = a;
        }
        py::array dz = dy;
        if (!is_linear) dz = py::array(py::dtype::of<T>(), shape_of(dy));
        T *dw_to = mutable_data<T>(dw), *db_to = mutable_data<T>(db);
        const T* dz_from = data<T>(dz);
        T* dz_to = !is_linear ? mutable_data<T>(dz) : nullptr;
        without_gil_if(batch * in * width > kKeepGil * 16, [&] {
            if (dz_to) activation_backward(f, dz_to, data<T>(dy), data<T>(y), std::size_t(batch), std::size_t(width));
            const Range rows{0, std::size_t(in)}, columns{0, std::size_t(width)};
            const Rows<const T> dz{dz_from, std::size_t(width)}, x_rows{data<T>(x), std::size_t(in)};
            dense_backward_weight<T>({dw_to, std::size_t(width)}, dz, x_rows, false, std::size_t(batch), rows, columns, precision);
            if (db_to) dense_backward_bias<T>(db_to, dz, false, std::size_t(batch), columns);
            if (dx)
                dense_backward_input<T>({dx, std::size_t(in)}, dz, x_rows.at, data<T>(w), Activation{}, std::size_t(batch),
                                        std::size_t(width), rows, precision);
        });
        return py::make_tuple(dx_result, dw, db);
    });
}

py::array vmath_op(py::handle name, py::handle x_in, py::handle out) {
    const int f = name_index("vmath", "name", kVmathFunctionNames, name);
    const char* me = kVmathFunctionNames[f].data();
    const py::array x_any = as_array({me, "x"}, x_in);
    return dispatch_float({me, "x"}, x_any, [&](auto tag) {
        using T = decltype(tag);
        const py::array x = contiguous<T>({me, "x"}, x_any);
        py::array y = output<T>({me, "out"}, out, shape_of(x), {&x}, true);
        T* to = mutable_data<T>(y);
        without_gil_if(x.size() > kKeepGil, [&] { map<T>(kernels().of<T>().vmath[f], to, data<T>(x), std::size_t(x.size())); });
        return y;
    });
}

// The rows and columns that an activation goes over: its rows lie along the last axis.
struct RowsAndColumns {
    std::size_t rows, columns;
};
RowsAndColumns rows_of(Site site, const py::array& a, ActivationKind kind) {
    if (info(kind).by_rows && a.ndim() == 0) value_error(site, "has shape (), expected at least one axis");
    const auto columns = std::size_t(a.ndim() > 0 ? a.shape(a.ndim() - 1) : 1);
    return {columns > 0 ? std::size_t(a.size()) / columns : 0, columns};
}

py::array activation_op(py::handle name, py::handle x_in, py::handle out, py::handle parameter) {
    const auto kind = ActivationKind(name_index("activation", "name", kActivationKindNames, name));
    const char* me = kActivationKindNames[int(kind)].data();
    const Activation f = with_parameter(me, kind, parameter);
    const py::array x_any = as_array({me, "x"}, x_in);
    return dispatch_float({me, "x"}, x_any, [&](auto tag) {
        using T = decltype(tag);
        const py::array x = contiguous<T>({me, "x"}, x_any);
        const RowsAndColumns n = rows_of({me, "x"}, x, kind);
        py::array y = output<T>({me, "out"}, out, shape_of(x), {&x}, true);
        T* to = mutable_data<T>(y);
        without_gil_if(x.size() > kKeepGil, [&] { activation(f, to, data<T>(x), n.rows, n.columns); });
        return y;
    });
}

py::array activation_backward_op(py::handle name, py::handle dy_in, py::handle source_in, py::handle out, py::handle parameter) {
    const auto kind = ActivationKind(name_index("activation_backward", "name", kActivationKindNames, name));
    const std::string function = std::string(kActivationKindNames[int(kind)]) + "_backward";
    const char* me = function.c_str();
    const Activation f = with_parameter(me, kind, parameter);
    const Site site{me, info(kind).of_input ? "x" : "y"};
    const py::array dy_any = as_array({me, "dy"}, dy_in);
    return dispatch_float({me, "dy"}, dy_any, [&](auto tag) {
        using T = decltype(tag);
        const py::array dy = contiguous<T>({me, "dy"}, dy_any), source = contiguous<T>(site, source_in);
        if (shape_of(dy) != shape_of(source)) value_error(site, "has shape " + shape_text(source) + ", expected " + shape_text(dy));
        const RowsAndColumns n = rows_of({me, "dy"}, dy, kind);
        py::array dx = output<T>({me, "out"}, out, shape_of(dy), {&dy, &source}, true);
        T* to = mutable_data<T>(dx);
        without_gil_if(dy.size() > kKeepGil, [&] { activation_backward(f, to, data<T>(dy), data<T>(source), n.rows, n.columns); });
        return dx;
    });
}

py::array standardize_op(py::handle x_in, py::handle mean_in, py::handle scale_in, py::handle out) {
    const char* me = "standardize";
    const py::array x_any = as_array({me, "x"}, x_in);
    return dispatch_float({me, "x"}, x_any, [&](auto tag) -> py::array {
        using T = decltype(tag);
        const py::array x = contiguous<T>({me, "x"}, x_any), mean = contiguous<T>({me, "mean"}, mean_in),
                        scale = contiguous<T>({me, "scale"}, scale_in);
        check_shape({me, "x"}, x, {-1, -1});
        check_shape({me, "mean"}, mean, {x.shape(1)});
        check_shape({me, "scale"}, scale, {x.shape(1)});
        py::array y = output<T>({me, "out"}, out, shape_of(x), {&x}, true);
        check_apart({me, "out"}, y, {me, "mean"}, mean);
        check_apart({me, "out"}, y, {me, "scale"}, scale);
        T* to = mutable_data<T>(y);
        without_gil_if(x.size() > kKeepGil, [&] {
            standardize(to, data<T>(x), data<T>(mean), data<T>(scale), std::size_t(x.shape(0)), std::size_t(x.shape(1)));
        });
        return y;
    });
}

py::array standardize_backward_op(py::handle dy_in, py::handle scale_in, py::handle out) {
    const char* me = "standardize_backward";
    const py::array dy_any = as_array({me, "dy"}, dy_in);
    return dispatch_float({me, "dy"}, dy_any, [&](auto tag) -> py::array {
        using T = decltype(tag);
        const py::array dy = contiguous<T>({me, "dy"}, dy_any), scale = contiguous<T>({me, "scale"}, scale_in);
        check_shape({me, "dy"}, dy, {-1, -1});
        check_shape({me, "scale"}, scale, {dy.shape(1)});
        py::array dx = output<T>({me, "out"}, out, shape_of(dy), {&dy}, true);
        check_apart({me, "out"}, dx, {me, "scale"}, scale);
        T* to = mutable_data<T>(dx);
        without_gil_if(dy.size() > kKeepGil, [&] {
            standardize_backward(to, data<T>(dy), data<T>(scale), std::size_t(dy.shape(0)), std::size_t(dy.shape(1)));
        });
        return dx;
    });
}

enum class Reduction { mean, sum, none };
constexpr std::string_view kReductionNames[] = {"mean", "sum", "none"};

// One weight for each element, from one for each of `rows` rows.
template <class T>
py::array repeated(const py::array& weight, py::ssize_t rows, py::ssize_t elements) {
    py::array each(py::dtype::of<T>(), std::vector<py::ssize_t>{elements});
    T* to = mutable_data<T>(each);
    for (py::ssize_t i = 0, row = elements / rows; i < rows; ++i, to += row) std::fill_n(to, row, data<T>(weight)[i]);
    return each;
}

// options: None, or (sample_weight or None, class weights or None, label_smoothing, delta); six arguments, for more pybind11
// allocates.
py::tuple loss_with_options_op(py::handle name, py::handle pred_in, py::handle target_in, py::handle reduction_in, py::handle out,
                               py::handle options_in) {
    const auto loss = Loss(name_index("loss", "name", kLossNames, name));
    const char* me = kLossNames[int(loss)].data();
    const bool classes = facts(loss).over == LossOver::classes;
    const Site pred_site{me, facts(loss).pred_name}, target_site{me, facts(loss).target_name};
    const auto reduction = Reduction(name_index(me, "reduction", kReductionNames, reduction_in));
    const py::array pred_any = as_array(pred_site, pred_in), target_any = as_array(target_site, target_in);
    return dispatch_float(pred_site, pred_any, [&](auto tag) -> py::tuple {
        using T = decltype(tag);
        const py::array pred = contiguous<T>(pred_site, pred_any);
        // A loss over elements takes any shape; where each element's loss is wanted, it is a row of its own.
        if (classes)
            check_shape(pred_site, pred, {-1, -1});
        else if (pred.size() == 0)
            value_error(pred_site, "has shape " + shape_text(pred) + ", expected no extent of 0");
        const py::ssize_t rows = pred.ndim() > 0 && (classes || reduction != Reduction::none) ? pred.shape(0) : pred.size();
        const py::ssize_t columns = classes ? pred.shape(1) : pred.size() / rows;
        py::array target;
        Target<T> wanted;
        if (classes && target_any.ndim() == 1) {
            target = labels(target_site, target_any, rows, columns);
            wanted.labels = data<std::int64_t>(target);
        } else {
            target = contiguous<T>(target_site, target_any);
            if (shape_of(target) != shape_of(pred))
                value_error(target_site, "has shape " + shape_text(target) + ", expected " + shape_text(pred) +
                                             (classes ? " or (" + std::to_string(rows) + ",)" : ""));
            check_target(target_site, data<T>(target), std::size_t(target.size()), facts(loss).target);
            wanted.values = data<T>(target);
        }
        std::optional<py::array> weight, class_weight;
        LossOptions<T> options;
        if (!options_in.is_none()) {
            const auto given = py::cast<py::tuple>(options_in);
            if (!given[0].is_none()) {
                const Site site{me, "sample_weight"};
                if (pred.ndim() == 0)
                    value_error(site, "is given, expected None: " + std::string(pred_site.argument) + " has no rows");
                weight = weights<T>(site, given[0], pred.shape(0), false);
            }
            if (!given[1].is_none()) {
                class_weight = weights<T>({me, "weight"}, given[1], columns, false);
                options.class_weight = data<T>(*class_weight);
            }
            options.label_smoothing = T(py::cast<double>(given[2])), options.delta = T(py::cast<double>(given[3]));
        }
        py::array dpred = output<T>({me, "out"}, out, shape_of(pred), {&pred, &target});
        if (weight) {
            check_apart({me, "out"}, dpred, {me, "sample_weight"}, *weight);
            if (!classes && reduction == Reduction::none) weight = repeated<T>(*weight, pred.shape(0), rows);
        }
        if (class_weight) check_apart({me, "out"}, dpred, {me, "weight"}, *class_weight);
        const bool as_pred = reduction == Reduction::none && !classes;
        py::array row_loss(py::dtype::of<T>(), as_pred ? shape_of(pred) : std::vector<py::ssize_t>{rows});
        T* row_loss_to = mutable_data<T>(row_loss);
        LossRows<T> a{row_loss_to,       mutable_data<T>(dpred), nullptr, data<T>(pred), wanted,
                      std::size_t(rows), std::size_t(columns),   T(1),    nullptr,       options};
        if (weight) a.weight = data<T>(*weight);
        const double count = reduction == Reduction::mean ? mean_count(loss, a) : 1;
        a.scale = mean_scale<T>(count);
        without_gil_if(rows * columns > kKeepGil, [&] { loss_rows(loss, a); });
        if (reduction == Reduction::none) return py::make_tuple(row_loss, dpred);
        return py::make_tuple(mean_of(sum_in_order(row_loss_to, std::size_t(rows)), count), dpred);
    });
}

py::tuple loss_op(py::handle name, py::handle pred, py::handle target, py::handle reduction, py::handle out) {
    return loss_with_options_op(name, pred, target, reduction, out, Py_None);
}

template <class F>
py::tuple activations_that(F holds) {
    py::list names;
    for (std::size_t i = 0; i < kActivationKindCount; ++i)
        if (holds(info(ActivationKind(i)))) names.append(py::str(kActivationKindNames[i].data(), kActivationKindNames[i].size()));
    return py::tuple(names);
}

// What the one number of an activation is called, and what it is unless given, of those that have one.
py::dict activation_parameters() {
    py::dict all;
    for (std::size_t i = 0; i < kActivationKindCount; ++i)
        if (const ActivationInfo& a = info(ActivationKind(i)); a.parameter)
            all[py::str(kActivationKindNames[i].data(), kActivationKindNames[i].size())] = py::make_tuple(a.parameter, a.standard);
    return all;
}

}  // namespace

void bind_ops(py::module_& m) {
    m.attr("activations") = names_tuple(kActivationKindNames);
    m.attr("activations_of_input") = activations_that([](const ActivationInfo& i) { return i.of_input; });
    m.attr("activations_by_rows") = activations_that([](const ActivationInfo& i) { return i.by_rows; });
    m.attr("activation_parameters") = activation_parameters();
    m.attr("losses") = names_tuple(kLossNames);
    m.attr("vmath_functions") = names_tuple(kVmathFunctionNames);
    m.def("dense", dense_op, py::arg("x"), py::arg("w"), py::arg("b") = py::none(), py::arg("activation") = py::none(),
          py::arg("out") = py::none(), py::arg("precision") = py::none());
    m.def("dense_backward", dense_backward_op, py::arg("dy"), py::arg("x"), py::arg("w"), py::arg("y") = py::none(),
          py::arg("activation") = py::none(), py::arg("need_dx") = true, py::arg("out") = py::none(),
          py::arg("precision") = py::none());
    m.def("activation", activation_op, py::arg("name"), py::arg("x"), py::arg("out") = py::none(),
          py::arg("parameter") = py::none());
    m.def("activation_backward", activation_backward_op, py::arg("name"), py::arg("dy"), py::arg("source"),
          py::arg("out") = py::none(), py::arg("parameter") = py::none());
    m.def("standardize", standardize_op, py::arg("x"), py::arg("mean"), py::arg("scale"), py::arg("out") = py::none());
    m.def("standardize_backward", standardize_backward_op, py::arg("dy"), py::arg("scale"), py::arg("out") = py::none());
    m.def("vmath", vmath_op, py::arg("name"), py::arg("x"), py::arg("out") = py::none());
    m.def("loss", loss_op, py::arg("name"), py::arg("pred"), py::arg("target"), py::arg("reduction") = "mean",
          py::arg("out") = py::none());
    m.def("loss_with_options", loss_with_options_op, py::arg("name"), py::arg("pred"), py::arg("target"), py::arg("reduction"),
          py::arg("out"), py::arg("options"));
}

}  // namespace trainstep
