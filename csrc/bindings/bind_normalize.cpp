// trainstep.ops: normalisation, dropout, moving averages.
#include <cmath>
#include <memory>
#include <tuple>
#include <utility>

#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "bindings/optim_values.h"
#include "ops/dropout.h"
#include "ops/ewma.h"
#include "ops/normalize.h"

namespace trainstep {

namespace {

using Shape = std::vector<py::ssize_t>;

// A number that must be at least `least` and below `most`, or as large where `with_most`.
double number_within(const char* me, const char* name, py::handle value, double least, double most, bool with_most) {
    const double x = number(me, name, value);
    if (!(x >= least && (with_most ? x <= most : x < most))) {
        const std::string wanted = most == HUGE_VAL ? "a finite number of at least 0"
                                   : with_most      ? "0 <= " + std::string(name) + " <= 1"
                                                    : "0 <= " + std::string(name) + " < 1";
        throw py::value_error(std::string(me) + ": " + name + " is " + ascii(value) + ", expected " + wanted);
    }
    return x;
}
double eps_number(const char* me, py::handle value) { return number_within(me, "eps", value, 0, HUGE_VAL, false); }

// The results to write into, one of each name: from a tuple, or None for each.
std::vector<py::object> results(const char* me, py::handle out, std::initializer_list<const char*> names) {
    if (out.is_none()) return std::vector<py::object>(names.size(), py::none());
    if (!py::isinstance<py::tuple>(out) || py::len(out) != names.size()) {
        std::string text;
        for (const char* name : names) text += (text.empty() ? "" : ", ") + std::string(name);
        type_error({me, "out"}, "must be a tuple (" + text + ")");
    }
    std::vector<py::object> all;
    for (const py::handle one : py::reinterpret_borrow<py::tuple>(out)) all.push_back(py::reinterpret_borrow<py::object>(one));
    return all;
}

void check_same_shape(Site site, const py::array& a, const Shape& shape) {
    if (shape_of(a) != shape) value_error(site, "has shape " + shape_text(a) + ", expected " + shape_text(shape));
}

// An argument of one number a column; x where it is None, which then has no pointer.
template <class T>
struct Columns {
    py::array array;
    const T* at = nullptr;

    Columns(Site site, py::handle given, const py::array& x) : array(x) {
        if (given.is_none()) return;
        array = contiguous<T>(site, given);
        check_shape(site, array, {x.shape(x.ndim() - 1)});
        at = data<T>(array);
    }
};

// x as rows along its last axis.
struct RowsOf {
    std::size_t rows, columns;
    Shape shape;  // of one number a row

    RowsOf(Site site, const py::array& x) {
        if (x.ndim() == 0) value_error(site, "has shape (), expected at least one axis");
        if (x.size() == 0) value_error(site, "has shape " + shape_text(x) + ", expected no extent of 0");
        columns = std::size_t(x.shape(x.ndim() - 1));
        rows = std::size_t(x.size()) / columns;
        shape = shape_of(x);
        shape.pop_back();
    }
};

py::tuple layer_norm_op(py::handle x_in, py::handle gamma_in, py::handle beta_in, py::handle eps_in, py::handle out) {
    const char* me = "layer_norm";
    const double eps = eps_number(me, eps_in);
    const auto to = results(me, out, {"y", "mean", "inv_std"});
    const py::array x_any = as_array({me, "x"}, x_in);
    return dispatch_float({me, "x"}, x_any, [&](auto tag) -> py::tuple {
        using T = decltype(tag);
        const py::array x = contiguous<T>({me, "x"}, x_any);
        const RowsOf n({me, "x"}, x);
        const Columns<T> gamma({me, "gamma"}, gamma_in, x), beta({me, "beta"}, beta_in, x);
        py::array y = output<T>({me, "out[0] (y)"}, to[0], shape_of(x), {&x, &gamma.array, &beta.array});
        py::array mean = output<T>({me, "out[1] (mean)"}, to[1], n.shape, {&x, &gamma.array, &beta.array, &y});
        py::array inv_std = output<T>({me, "out[2] (inv_std)"}, to[2], n.shape, {&x, &gamma.array, &beta.array, &y, &mean});
        T *y_to = mutable_data<T>(y), *mean_to = mutable_data<T>(mean), *inv_std_to = mutable_data<T>(inv_std);
        without_gil_if(x.size() > kKeepGil, [&] {
            layer_norm<T>(y_to, mean_to, inv_std_to, nullptr, data<T>(x), gamma.at, beta.at, n.rows, n.columns, eps);
        });
        return py::make_tuple(y, mean, inv_std);
    });
}

py::tuple layer_norm_backward_op(py::handle dy_in, py::handle x_in, py::handle mean_in, py::handle inv_std_in, py::handle gamma_in,
                                 py::handle out) {
    const char* me = "layer_norm_backward";
    const auto to = results(me, out, {"dx", "dgamma", "dbeta"});
    const py::array dy_any = as_array({me, "dy"}, dy_in);
    return dispatch_float({me, "dy"}, dy_any, [&](auto tag) -> py::tuple {
        using T = decltype(tag);
        const py::array dy = contiguous<T>({me, "dy"}, dy_any), x = contiguous<T>({me, "x"}, x_in),
                        mean = contiguous<T>({me, "mean"}, mean_in), inv_std = contiguous<T>({me, "inv_std"}, inv_std_in);
        const RowsOf n({me, "x"}, x);
        check_same_shape({me, "dy"}, dy, shape_of(x));
        check_same_shape({me, "mean"}, mean, n.shape);
        check_same_shape({me, "inv_std"}, inv_std, n.shape);
        const Columns<T> gamma({me, "gamma"}, gamma_in, x);
        const Shape width{py::ssize_t(n.columns)};
        py::array dx = output<T>({me, "out[0] (dx)"}, to[0], shape_of(x), {&dy, &x, &mean, &inv_std, &gamma.array});
        py::array dgamma = output<T>({me, "out[1] (dgamma)"}, to[1], width, {&dy, &x, &mean, &inv_std, &gamma.array, &dx});
        py::array dbeta = output<T>({me, "out[2] (dbeta)"}, to[2], width, {&dy, &x, &mean, &inv_std, &gamma.array, &dx, &dgamma});
        T *dx_to = mutable_data<T>(dx), *dgamma_to = mutable_data<T>(dgamma), *dbeta_to = mutable_data<T>(dbeta);
        without_gil_if(x.size() > kKeepGil, [&] {
            const auto sums = std::make_unique_for_overwrite<double[]>(layer_norm_sums(n.rows, n.columns));
            layer_norm_backward<T>(
                {dx_to, dgamma_to, dbeta_to, data<T>(dy), data<T>(x), data<T>(mean), data<T>(inv_std), gamma.at, n.rows, n.columns},
                sums.get());
        });
        return py::make_tuple(dx, dgamma, dbeta);
    });
}

py::tuple batch_norm_op(py::handle x_in, py::handle gamma_in, py::handle beta_in, py::handle running_mean_in,
                        py::handle running_var_in, bool training, py::handle momentum_in, py::handle eps_in, py::handle out) {
    const char* me = "batch_norm";
    const Site mean_site{me, "running_mean"}, var_site{me, "running_var"};
    const double momentum = number_within(me, "momentum", momentum_in, 0, 1, true), eps = eps_number(me, eps_in);
    const auto to = results(me, out, {"y", "mean", "inv_std"});
    for (const auto& [site, own, other] :
         {std::tuple{mean_site, running_mean_in, running_var_in}, std::tuple{var_site, running_var_in, running_mean_in}})
        if (own.is_none() && !(training && other.is_none()))
            value_error(site, training ? "is None, expected both running statistics or none"
                                       : "is None, expected an array: without training the running statistics are taken");
    const py::array x_any = as_array({me, "x"}, x_in);
    return dispatch_float({me, "x"}, x_any, [&](auto tag) -> py::tuple {
        using T = decltype(tag);
        const py::array x = contiguous<T>({me, "x"}, x_any);
        check_shape({me, "x"}, x, {-1, -1});
        const Shape width{x.shape(1)};
        const Columns<T> gamma({me, "gamma"}, gamma_in, x), beta({me, "beta"}, beta_in, x);
        // In training they are changed in place, otherwise read like any input.
        py::array running_mean = x, running_var = x;
        const auto running = [&](Site site, py::handle given) {
            const py::array a = training ? in_place<T>(site, given) : contiguous<T>(site, given);
            check_shape(site, a, {x.shape(1)});
            return a;
        };
        const bool has_running = !running_mean_in.is_none();
        if (has_running) {
            running_mean = running(mean_site, running_mean_in), running_var = running(var_site, running_var_in);
            if (training) {
                const std::pair<Site, const py::array*> others[] = {
                    {{me, "x"}, &x}, {{me, "gamma"}, &gamma.array}, {{me, "beta"}, &beta.array}};
                for (const auto& [site, array] : others)
                    check_apart(mean_site, running_mean, site, *array), check_apart(var_site, running_var, site, *array);
                check_apart(var_site, running_var, mean_site, running_mean);
            }
        }
        const auto result = [&](const char* name, py::handle given, const Shape& shape, const py::array& before,
                                const py::array& first) {
            return output<T>({me, name}, given, shape,
                             {&x, &gamma.array, &beta.array, &running_mean, &running_var, &before, &first});
        };
        py::array y = result("out[0] (y)", to[0], shape_of(x), x, x);
        py::array mean = result("out[1] (mean)", to[1], width, y, x);
        py::array inv_std = result("out[2] (inv_std)", to[2], width, y, mean);
        std::vector<T> mean_low(std::size_t(x.shape(1)));
        const auto columns = std::size_t(x.shape(1));
        // Only in training are they written.
        T* const moving_mean = has_running ? const_cast<T*>(data<T>(running_mean)) : nullptr;
        T* const moving_var = has_running ? const_cast<T*>(data<T>(running_var)) : nullptr;
        const BatchNorm<T> batch{mutable_data<T>(y),
                                 columns,
                                 mutable_data<T>(mean),
                                 mean_low.data(),
                                 mutable_data<T>(inv_std),
                                 moving_mean,
                                 moving_var,
                                 data<T>(x),
                                 columns,
                                 gamma.at,
                                 beta.at,
                                 std::size_t(x.shape(0)),
                                 momentum,
                                 eps};
        without_gil_if(x.size() > kKeepGil, [&] { batch_norm(batch, training, columns); });
        return py::make_tuple(y, mean, inv_std);
    });
}

py::tuple batch_norm_backward_op(py::handle dy_in, py::handle x_in, py::handle mean_in, py::handle inv_std_in, py::handle gamma_in,
                                 bool training, py::handle out) {
    const char* me = "batch_norm_backward";
    const auto to = results(me, out, {"dx", "dgamma", "dbeta"});
    const py::array dy_any = as_array({me, "dy"}, dy_in);
    return dispatch_float({me, "dy"}, dy_any, [&](auto tag) -> py::tuple {
        using T = decltype(tag);
        const py::array dy = contiguous<T>({me, "dy"}, dy_any), x = contiguous<T>({me, "x"}, x_in),
                        mean = contiguous<T>({me, "mean"}, mean_in), inv_std = contiguous<T>({me, "inv_std"}, inv_std_in);
        check_shape({me, "x"}, x, {-1, -1});
        check_same_shape({me, "dy"}, dy, shape_of(x));
        const Shape width{x.shape(1)};
        check_same_shape({me, "mean"}, mean, width);
        check_same_shape({me, "inv_std"}, inv_std, width);
        const Columns<T> gamma({me, "gamma"}, gamma_in, x);
        py::array dx = output<T>({me, "out[0] (dx)"}, to[0], shape_of(x), {&dy, &x, &mean, &inv_std, &gamma.array});
        py::array dgamma = output<T>({me, "out[1] (dgamma)"}, to[1], width, {&dy, &x, &mean, &inv_std, &gamma.array, &dx});
        py::array dbeta = output<T>({me, "out[2] (dbeta)"}, to[2], width, {&dy, &x, &mean, &inv_std, &gamma.array, &dx, &dgamma});
        const auto columns = std::size_t(x.shape(1));
        const BatchNormBackward<T> batch{mutable_data<T>(dx),
                                         columns,
                                         mutable_data<T>(dgamma),
                                         mutable_data<T>(dbeta),
                                         data<T>(dy),
                                         columns,
                                         data<T>(x),
                                         columns,
                                         data<T>(mean),
                                         nullptr,
                                         data<T>(inv_std),
                                         gamma.at,
                                         std::size_t(x.shape(0)),
                                         training};
        without_gil_if(x.size() > kKeepGil, [&] { batch_norm_backward(batch, columns); });
        return py::make_tuple(dx, dgamma, dbeta);
    });
}

double rate_number(const char* me, py::handle value) { return number_within(me, "rate", value, 0, 1, false); }

std::uint8_t* bytes(py::array& mask) { return reinterpret_cast<std::uint8_t*>(mutable_data<bool>(mask)); }

py::tuple dropout_op(py::handle x_in, py::handle rate_in, std::uint64_t seed, std::uint32_t counter, py::handle out) {
    const char* me = "dropout";
    const double rate = rate_number(me, rate_in);
    const auto to = results(me, out, {"y", "mask"});
    const py::array x_any = as_array({me, "x"}, x_in);
    return dispatch_float({me, "x"}, x_any, [&](auto tag) -> py::tuple {
        using T = decltype(tag);
        const py::array x = contiguous<T>({me, "x"}, x_any);
        py::array y = output<T>({me, "out[0] (y)"}, to[0], shape_of(x), {&x}, true);
        py::array mask = output<bool>({me, "out[1] (mask)"}, to[1], shape_of(x), {&x, &y});
        T* y_to = mutable_data<T>(y);
        std::uint8_t* kept = bytes(mask);
        without_gil_if(x.size() > kKeepGil, [&] {
            dropout(y_to, kept, data<T>(x), std::size_t(x.size()), dropout_mask(rate, seed, counter), T(dropout_scale(rate)));
        });
        return py::make_tuple(y, mask);
    });
}

// With a mask, or with the seed and the counter that it is drawn from.
py::array dropout_backward_op(py::handle dy_in, py::handle rate_in, py::handle mask_in, std::uint64_t seed, std::uint32_t counter,
                              py::handle out) {
    const char* me = "dropout_backward";
    const double rate = rate_number(me, rate_in);
    const py::array dy_any = as_array({me, "dy"}, dy_in);
    return dispatch_float({me, "dy"}, dy_any, [&](auto tag) -> py::array {
        using T = decltype(tag);
        const py::array dy = contiguous<T>({me, "dy"}, dy_any);
        py::array mask = dy;
        if (!mask_in.is_none()) {
            mask = contiguous<bool>({me, "mask"}, mask_in);
            check_same_shape({me, "mask"}, mask, shape_of(dy));
        }
        py::array dx = output<T>({me, "out"}, out, shape_of(dy), {&dy}, true);
        if (!mask_in.is_none()) check_apart({me, "out"}, dx, {me, "mask"}, mask);
        T* to = mutable_data<T>(dx);
        const auto n = std::size_t(dy.size());
        const T scale = T(dropout_scale(rate));
        without_gil_if(dy.size() > kKeepGil, [&] {
            if (mask_in.is_none())
                dropout<T>(to, nullptr, data<T>(dy), n, dropout_mask(rate, seed, counter), scale);
            else
                dropout_masked(to, reinterpret_cast<const std::uint8_t*>(mask.data()), data<T>(dy), n, scale);
        });
        return dx;
    });
}

py::array ewma_op(py::handle x_in, py::handle beta_in, bool bias_correction, py::handle out) {
    const char* me = "ewma";
    const double beta = number_within(me, "beta", beta_in, 0, 1, false);
    const py::array x_any = as_array({me, "x"}, x_in);
    return dispatch_float({me, "x"}, x_any, [&](auto tag) -> py::array {
        using T = decltype(tag);
        const py::array x = contiguous<T>({me, "x"}, x_any);
        if (x.ndim() == 0) value_error({me, "x"}, "has shape (), expected at least one axis");
        py::array y = output<T>({me, "out"}, out, shape_of(x), {&x}, true);
        if (x.size() == 0) return y;
        T* to = mutable_data<T>(y);
        const auto rows = std::size_t(x.shape(0)), columns = std::size_t(x.size()) / rows;
        without_gil_if(x.size() > kKeepGil, [&] { ewma(to, data<T>(x), rows, columns, beta, bias_correction); });
        return y;
    });
}

}  // namespace

void bind_normalize(py::module_& m) {
    m.def("layer_norm", layer_norm_op, py::arg("x"), py::arg("gamma") = py::none(), py::arg("beta") = py::none(),
          py::arg("eps") = 1e-5, py::arg("out") = py::none());
    m.def("layer_norm_backward", layer_norm_backward_op, py::arg("dy"), py::arg("x"), py::arg("mean"), py::arg("inv_std"),
          py::arg("gamma") = py::none(), py::arg("out") = py::none());
    m.def("batch_norm", batch_norm_op, py::arg("x"), py::arg("gamma"), py::arg("beta"), py::arg("running_mean"),
          py::arg("running_var"), py::arg("training"), py::arg("momentum"), py::arg("eps"), py::arg("out") = py::none());
    m.def("batch_norm_backward", batch_norm_backward_op, py::arg("dy"), py::arg("x"), py::arg("mean"), py::arg("inv_std"),
          py::arg("gamma"), py::arg("training"), py::arg("out") = py::none());
    m.def("dropout", dropout_op, py::arg("x"), py::arg("rate"), py::arg("seed"), py::arg("counter"), py::arg("out") = py::none());
    m.def("dropout_backward", dropout_backward_op, py::arg("dy"), py::arg("rate"), py::arg("mask"), py::arg("seed"),
          py::arg("counter"), py::arg("out") = py::none());
    m.def("ewma", ewma_op, py::arg("x"), py::arg("beta"), py::arg("bias_correction"), py::arg("out") = py::none());
}

}  // namespace trainstep
