// trainstep.optim: the Optimizer class of each dtype, and the bare formulas.
#include <pybind11/stl.h>

#include <algorithm>
#include <stdexcept>

#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "optim/optimizer.h"
#include "optim/options.h"

namespace trainstep {

namespace {

double number(const std::string& who, const std::string& name, py::handle value) {
    const bool on_or_off = is_switch(name), truth = PyBool_Check(value.ptr()) || type_name(value) == "bool";  // NumPy's too
    const bool refused = py::isinstance<py::str>(value) || (truth && !on_or_off);
    const double x = refused ? 0 : PyFloat_AsDouble(value.ptr());
    const bool too_large = PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_OverflowError);
    if (refused || (PyErr_Occurred() && !too_large)) {
        PyErr_Clear();
        throw py::type_error(who + ": " + name + " is a " + type_name(value) + ", expected a " + (on_or_off ? "bool" : "number"));
    }
    PyErr_Clear();
    if (too_large) throw py::value_error(who + ": " + name + " is too large an int, expected a number");
    if (on_or_off && x != 0 && x != 1) throw py::value_error(who + ": " + name + " is " + ascii(value) + ", expected a bool");
    return x;
}

using OptionValues = std::vector<std::pair<std::string, double>>;

// Python's values as the core's options.
OptionValues option_values(const std::string& who, const py::dict& values) {
    OptionValues result;
    for (const auto& [key, value] : values) {
        const auto name = py::cast<std::string>(key);
        if (name == "betas") {
            if (!py::isinstance<py::sequence>(value) || py::len(value) != 2)
                throw py::value_error(who + ": betas is " + std::string(py::repr(value)) + ", expected two numbers");
            const auto betas = py::reinterpret_borrow<py::sequence>(value);
            result.emplace_back("beta1", number(who, "betas[0]", betas[0]));
            result.emplace_back("beta2", number(who, "betas[1]", betas[1]));
        } else {
            result.emplace_back(name, number(who, name, value));
        }
    }
    return result;
}

// Changes options: all of them or, where one cannot be taken, none.
void change_options(OptimizerOptions& options, const std::string& who, OptimizerKind kind, const OptionValues& values) {
    OptimizerOptions changed = options;
    for (const auto& [name, value] : values)
        if (!set_option(changed, name, value)) throw std::invalid_argument(who + ": no optimizer option is named '" + name + "'");
    check_options(who, kind, changed);
    options = changed;
}

OptimizerOptions options_from(const std::string& who, OptimizerKind kind, const py::dict& values) {
    OptimizerOptions options;
    change_options(options, who, kind, option_values(who, values));
    return options;
}

bool same_shape(const py::array& a, const py::array& b) {
    return a.ndim() == b.ndim() && std::equal(a.shape(), a.shape() + a.ndim(), b.shape());
}

// One update of one array: w, its states and its gradient g, with the options of this call alone.
void step_array(py::handle name, const char* me, py::handle w_in, py::handle g_in, const py::tuple& states_in, py::handle step_in,
                const py::dict& values) {
    const auto kind = OptimizerKind(name_index(me, "kind", kOptimizerKindNames, name));
    OptimizerOptions options = options_from(me, kind, values);
    if (!PyIndex_Check(step_in.ptr()) || PyBool_Check(step_in.ptr()))
        type_error({me, "step"}, "is a " + type_name(step_in) + ", expected an int");
    const auto step = py::reinterpret_steal<py::object>(PyNumber_Index(step_in.ptr()));
    if (!step) throw py::error_already_set();
    int overflow = 0;
    options.step = PyLong_AsLongLongAndOverflow(step.ptr(), &overflow);
    if (options.step < 1 || overflow) value_error({me, "step"}, "is " + ascii(step) + ", expected 1 to 2^63 - 1");
    if (py::len(states_in) == 0 && options.momentum != 0)
        value_error({me, "momentum_buffer"}, "is None, expected an array of the shape of w since momentum is not 0");
    const py::array w_any = as_array({me, "w"}, w_in, false);
    dispatch_float({me, "w"}, w_any, [&](auto tag) {
        using T = decltype(tag);
        py::array w = in_place<T>({me, "w"}, w_any);
        const py::array g = contiguous<T>({me, "g"}, g_in);
        const auto check = [&](Site site, const py::array& a) {
            if (!same_shape(a, w)) value_error(site, "has shape " + shape_text(a) + ", expected " + shape_text(w) + " as w has");
            check_apart(site, a, {me, "w"}, w);
        };
        check({me, "g"}, g);
        StepArray<T> array{mutable_data<T>(w), data<T>(g), {}, std::size_t(w.size()), &options};
        std::vector<py::array> states;
        for (std::size_t s = 0; s < py::len(states_in); ++s) {
            const py::tuple named = states_in[s];  // (name, array)
            const std::string state_name = py::cast<std::string>(named[0]);
            const Site site{me, state_name.c_str()};
            py::array state = in_place<T>(site, named[1]);
            check(site, state);
            check_apart(site, state, {me, "g"}, g);
            for (const py::array& other : states) check_apart(site, state, {me, "another state"}, other);
            array.states[s] = mutable_data<T>(state);
            states.push_back(state);
        }
        const WithoutGil released;
        optimizer_step(kind, &array, 1);
    });
}

template <class T>
void step_arrays(Optimizer<T>& optimizer, const py::list& weights, py::handle gradients_in) {
    const char* me = "step";
    const std::size_t count = optimizer.arrays().size();
    if (!py::isinstance<py::sequence>(gradients_in) || py::isinstance<py::str>(gradients_in) ||
        py::isinstance<py::array>(gradients_in))
        type_error({me, "grads"}, "is a " + type_name(gradients_in) + ", expected a sequence of arrays");
    const auto gradients = py::reinterpret_borrow<py::sequence>(gradients_in);
    if (std::size_t(py::len(gradients)) != count)
        value_error({me, "grads"}, "has " + std::to_string(py::len(gradients)) + " arrays, expected " + std::to_string(count));
    std::vector<py::array> w, g;
    struct Span {
        const T *first, *last;
        std::size_t i;
    };
    std::vector<Span> written;  // what the parameters cover, in order of address
    w.reserve(count), g.reserve(count), written.reserve(count);
    const auto site = [me](const char* list, std::size_t i) { return Site{me, list, std::ptrdiff_t(i)}; };
    for (std::size_t i = 0; i < count; ++i) {
        w.push_back(in_place<T>(site("params", i), weights[i]));
        g.push_back(contiguous<T>(site("grads", i), gradients[i]));
        if (!same_shape(g[i], w[i]) || std::size_t(w[i].size()) != optimizer.arrays()[i].n)
            value_error(site("grads", i), "has shape " + shape_text(g[i]) + ", expected " + shape_text(w[i]));
        written.push_back({data<T>(w[i]), data<T>(w[i]) + w[i].size(), i});
    }
    std::sort(written.begin(), written.end(), [](const Span& a, const Span& b) { return a.first < b.first; });
    for (std::size_t i = 0; i < count; ++i) {
        const T *first = data<T>(g[i]), *last = first + g[i].size();
        // The last parameter that begins before this gradient ends: the only one that can reach into it.
        const auto above =
            std::lower_bound(written.begin(), written.end(), last, [](const Span& span, const T* p) { return span.first < p; });
        if (first < last && above != written.begin() && std::prev(above)->last > first)
            value_error(site("grads", i),
                        "shares memory with " + site("params", std::prev(above)->i).name() + ", expected memory of its own");
    }
    const WithoutGil released;
    const std::lock_guard held(optimizer.lock);
    for (std::size_t i = 0; i < count; ++i) optimizer.place(i, const_cast<T*>(data<T>(w[i])), data<T>(g[i]));
    optimizer.step();
}

template <class T>
void bind_optimizer(py::module_& m, const char* name) {
    using O = Optimizer<T>;
    py::class_<O, std::shared_ptr<O>>(m, name)
        .def(py::init([](py::handle kind_name, const std::string& who, const py::list& groups,
                         const std::vector<std::size_t>& sizes, const std::vector<std::size_t>& group_of) {
                 const auto kind = OptimizerKind(name_index("Optimizer", "kind", kOptimizerKindNames, kind_name));
                 std::vector<OptimizerOptions> options;
                 for (const auto& group : groups) options.push_back(options_from(who, kind, py::cast<py::dict>(group)));
                 return std::make_shared<O>(kind, std::move(options), sizes, group_of);
             }),
             py::arg("kind"), py::arg("who"), py::arg("groups"), py::arg("sizes"), py::arg("group_of"))
        .def(
            "set_options",
            [](O& self, const std::string& who, std::size_t group, const py::dict& values) {
                const OptionValues changed = option_values(who, values);
                const WithoutGil released;
                const std::lock_guard held(self.lock);  // not in the middle of a step
                change_options(self.options(group), who, self.kind(), changed);
            },
            py::arg("who"), py::arg("group"), py::arg("values"))
        .def("step", step_arrays<T>, py::arg("params"), py::arg("grads"))
        .def(
            "state",
            [](py::object self, std::size_t i, std::size_t s, const std::vector<py::ssize_t>& shape) {
                return py::array(py::dtype::of<T>(), shape, py::cast<O&>(self).arrays().at(i).states[s], self);
            },
            py::arg("param"), py::arg("state"), py::arg("shape"))
        .def_property("steps", [](const O& self) { return self.steps.load(); }, [](O& self, std::int64_t n) { self.steps = n; });
}

}  // namespace

void bind_optim(py::module_& m) {
    m.attr("optimizers") = names_tuple(kOptimizerKindNames);
    bind_optimizer<float>(m, "OptimizerFloat32");
    bind_optimizer<double>(m, "OptimizerFloat64");
    m.def("step_array", step_array, py::arg("kind"), py::arg("who"), py::arg("w"), py::arg("g"), py::arg("states"), py::arg("step"),
          py::arg("options"));
}

}  // namespace trainstep
