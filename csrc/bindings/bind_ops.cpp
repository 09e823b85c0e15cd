// trainstep.ops: the formulas on arrays.
#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "ops/dense.h"
#include "ops/elementwise.h"
#include "ops/losses.h"
#include "runtime/isa.h"

namespace trainstep {

namespace {

std::vector<py::ssize_t> shape_of(const py::array& a) { return {a.shape(), a.shape() + a.ndim()}; }

// Work under this many elements is over before another thread could take the GIL.
constexpr py::ssize_t kKeepGil = 20000;
template <class F>
void without_gil_if(bool large, F&& f) {
    if (!large) return f();
    const WithoutGil released;
    f();
}

py::array dense_op(py::handle x_in, py::handle w_in, py::handle b_in, py::handle activation_in, py::handle out) {
    const char* me = "dense";
    const auto activation = Activation(name_index(me, "activation", kActivationNames, activation_in, true));
    const py::array x_any = as_array({me, "x"}, x_in);
    return dispatch_float({me, "x"}, x_any, [&](auto tag) {
        using T = decltype(tag);
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
            dense<T>({to, std::size_t(width)}, {data<T>(x), std::size_t(in)}, data<T>(w), bias, activation, std::size_t(batch),
                     std::size_t(in), std::size_t(width), {0, std::size_t(width)});
        });
        return y;
    });
}

py::tuple dense_backward_op(py::handle dy_in, py::handle x_in, py::handle w_in, py::handle y_in, py::handle activation_in,
                            bool need_dx, py::handle out) {
    const char* me = "dense_backward";
    const auto activation = Activation(name_index(me, "activation", kActivationNames, activation_in, true));
    if (activation != Activation::identity && y_in.is_none())
        value_error({me, "y"}, "is None, expected the output of dense: the derivative of " +
                                   std::string(kActivationNames[int(activation)]) + " is taken from it");
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
        const py::array dy = contiguous<T>({me, "dy"}, dy_any), x = contiguous<T>({me, "x"}, x_in),
                        w = contiguous<T>({me, "w"}, w_in);
        check_shape({me, "x"}, x, {-1, -1});
        const py::ssize_t batch = x.shape(0), in = x.shape(1);
        check_shape({me, "w"}, w, {in, -1});
        const py::ssize_t width = w.shape(1);
        check_shape({me, "dy"}, dy, {batch, width});
        py::array y = dy;
        if (activation != Activation::identity) {
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
        if (activation != Activation::identity) dz = py::array(py::dtype::of<T>(), shape_of(dy));
        T *dw_to = mutable_data<T>(dw), *db_to = mutable_data<T>(db);
        const T* dz_from = data<T>(dz);
        T* dz_to = activation != Activation::identity ? mutable_data<T>(dz) : nullptr;
        without_gil_if(batch * in * width > kKeepGil * 16, [&] {
            if (dz_to) activation_backward(activation, dz_to, data<T>(dy), data<T>(y), std::size_t(batch * width));
            const Range rows{0, std::size_t(in)}, columns{0, std::size_t(width)};
            const Rows<const T> dz{dz_from, std::size_t(width)}, x_rows{data<T>(x), std::size_t(in)};
            dense_backward_weight<T>({dw_to, std::size_t(width)}, dz, x_rows, false, std::size_t(batch), rows, columns);
            if (db_to) dense_backward_bias<T>(db_to, dz, false, std::size_t(batch), columns);
            if (dx)
                dense_backward_input<T>({dx, std::size_t(in)}, dz, x_rows, data<T>(w), Activation::identity, std::size_t(batch),
                                        std::size_t(width), rows);
        });
        return py::make_tuple(dx_result, dw, db);
    });
}

// y = f(x) for the row that `pick` chooses from the table.
template <class Pick>
py::array map_op(const char* me, py::handle x_in, py::handle out, Pick pick) {
    const py::array x_any = as_array({me, "x"}, x_in);
    return dispatch_float({me, "x"}, x_any, [&](auto tag) {
        using T = decltype(tag);
        const py::array x = contiguous<T>({me, "x"}, x_any);
        py::array y = output<T>({me, "out"}, out, shape_of(x), {&x}, true);
        T* to = mutable_data<T>(y);
        without_gil_if(x.size() > kKeepGil, [&] { map<T>(pick(kernels().of<T>()), to, data<T>(x), std::size_t(x.size())); });
        return y;
    });
}

py::array activation_op(py::handle name, py::handle x, py::handle out) {
    const int f = name_index("activation", "name", kActivationNames, name);
    return map_op(kActivationNames[f].data(), x, out, [f](const auto& kernels) { return kernels.activation[f]; });
}

py::array vmath_op(py::handle name, py::handle x, py::handle out) {
    const int f = name_index("vmath", "name", kVmathFunctionNames, name);
    return map_op(kVmathFunctionNames[f].data(), x, out, [f](const auto& kernels) { return kernels.vmath[f]; });
}

py::array activation_backward_op(py::handle name, py::handle dy_in, py::handle y_in, py::handle out) {
    const auto f = Activation(name_index("activation_backward", "name", kActivationNames, name));
    const std::string function = std::string(kActivationNames[int(f)]) + "_backward";
    const char* me = function.c_str();
    const py::array dy_any = as_array({me, "dy"}, dy_in);
    return dispatch_float({me, "dy"}, dy_any, [&](auto tag) {
        using T = decltype(tag);
        const py::array dy = contiguous<T>({me, "dy"}, dy_any), y = contiguous<T>({me, "y"}, y_in);
        if (shape_of(dy) != shape_of(y)) value_error({me, "y"}, "has shape " + shape_text(y) + ", expected " + shape_text(dy));
        py::array dx = output<T>({me, "out"}, out, shape_of(dy), {&dy, &y}, true);
        T* to = mutable_data<T>(dx);
        without_gil_if(dy.size() > kKeepGil, [&] { activation_backward(f, to, data<T>(dy), data<T>(y), std::size_t(dy.size())); });
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

py::tuple loss_op(py::handle name, py::handle pred_in, py::handle target_in, py::handle reduction_in, py::handle out) {
    const auto loss = Loss(name_index("loss", "name", kLossNames, name));
    const char* me = kLossNames[int(loss)].data();
    const bool classes = is_classification(loss);
    const Site pred_site{me, classes ? "logits" : "pred"}, target_site{me, classes ? "labels" : "target"};
    const auto reduction = Reduction(name_index(me, "reduction", kReductionNames, reduction_in));
    const py::array pred_any = as_array(pred_site, pred_in), target_any = as_array(target_site, target_in);
    return dispatch_float(pred_site, pred_any, [&](auto tag) -> py::tuple {
        using T = decltype(tag);
        const py::array pred = contiguous<T>(pred_site, pred_any);
        // A loss over elements takes any shape; its elements are rows of one column.
        if (classes)
            check_shape(pred_site, pred, {-1, -1});
        else if (pred.size() == 0)
            value_error(pred_site, "has shape " + shape_text(pred) + ", expected no extent of 0");
        const py::ssize_t rows = classes ? pred.shape(0) : pred.size(), columns = classes ? pred.shape(1) : 1;
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
            check_target(target_site, data<T>(target), std::size_t(target.size()), classes);
            wanted.values = data<T>(target);
        }
        py::array dpred = output<T>({me, "out"}, out, shape_of(pred), {&pred, &target});
        py::array row_loss(py::dtype::of<T>(), classes ? std::vector<py::ssize_t>{rows} : shape_of(pred));
        const double count = reduction == Reduction::mean ? mean_count(loss, std::size_t(rows), std::size_t(columns)) : 1;
        T* row_loss_to = mutable_data<T>(row_loss);
        const LossRows<T> a{row_loss_to,       mutable_data<T>(dpred), nullptr,     data<T>(pred), wanted,
                            std::size_t(rows), std::size_t(columns),   T(1 / count)};
        without_gil_if(rows * columns > kKeepGil, [&] { loss_rows(loss, a); });
        if (reduction == Reduction::none) return py::make_tuple(row_loss, dpred);
        return py::make_tuple(sum_in_order(row_loss_to, std::size_t(rows)) / count, dpred);
    });
}

}  // namespace

void bind_ops(py::module_& m) {
    m.attr("activations") = names_tuple(kActivationNames);
    m.attr("losses") = names_tuple(kLossNames);
    m.attr("vmath_functions") = names_tuple(kVmathFunctionNames);
    m.def("dense", dense_op, py::arg("x"), py::arg("w"), py::arg("b") = py::none(), py::arg("activation") = py::none(),
          py::arg("out") = py::none());
    m.def("dense_backward", dense_backward_op, py::arg("dy"), py::arg("x"), py::arg("w"), py::arg("y") = py::none(),
          py::arg("activation") = py::none(), py::arg("need_dx") = true, py::arg("out") = py::none());
    m.def("activation", activation_op, py::arg("name"), py::arg("x"), py::arg("out") = py::none());
    m.def("activation_backward", activation_backward_op, py::arg("name"), py::arg("dy"), py::arg("y"), py::arg("out") = py::none());
    m.def("standardize", standardize_op, py::arg("x"), py::arg("mean"), py::arg("scale"), py::arg("out") = py::none());
    m.def("standardize_backward", standardize_backward_op, py::arg("dy"), py::arg("scale"), py::arg("out") = py::none());
    m.def("vmath", vmath_op, py::arg("name"), py::arg("x"), py::arg("out") = py::none());
    m.def("loss", loss_op, py::arg("name"), py::arg("pred"), py::arg("target"), py::arg("reduction") = "mean",
          py::arg("out") = py::none());
}

}  // namespace trainstep
