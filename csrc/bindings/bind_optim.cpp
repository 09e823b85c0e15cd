// trainstep.optim: the Optimizer class of each dtype, and the bare formulas.
#include <pybind11/stl.h>

#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "optim/optimizer.h"
#include "optim/options.h"

namespace trainstep {

OptimizerOptions options_from(const std::string& who, OptimizerKind kind, const py::dict& values) {
    OptimizerOptions options;
    for (const auto& [name, value] : values) set_option(options, py::cast<std::string>(name), py::cast<double>(value));
    check_options(who, kind, options);
    return options;
}

namespace {

// One update of one array: w, its states and its gradient g, with the options of this call alone.
void step_array(py::handle name, const char* me, py::handle w_in, py::handle g_in, const py::tuple& states_in, std::int64_t step,
                const py::dict& values) {
    const auto kind = OptimizerKind(name_index(me, "kind", kOptimizerKindNames, name));
    OptimizerOptions options = options_from(me, kind, values);
    options.step = step;
    if (step < 1) value_error({me, "step"}, "is " + std::to_string(step) + ", expected at least 1");
    const py::array w_any = as_array({me, "w"}, w_in);
    dispatch_float({me, "w"}, w_any, [&](auto tag) {
        using T = decltype(tag);
        py::array w = in_place<T>({me, "w"}, w_any);
        const py::array g = contiguous<T>({me, "g"}, g_in);
        const auto same_shape = [&](Site site, const py::array& a) {
            if (a.ndim() != w.ndim() || !std::equal(a.shape(), a.shape() + a.ndim(), w.shape()))
                value_error(site, "has shape " + shape_text(a) + ", expected " + shape_text(w) + " as w has");
        };
        same_shape({me, "g"}, g);
        check_apart({me, "g"}, g, {me, "w"}, w);
        StepArray<T> array{mutable_data<T>(w), data<T>(g), {}, std::size_t(w.size()), &options};
        std::vector<py::array> states;
        for (std::size_t s = 0; s < py::len(states_in); ++s) {
            const py::tuple named = states_in[s];  // (name, array)
            const std::string state_name = py::cast<std::string>(named[0]);
            const Site site{me, state_name.c_str()};
            py::array state = in_place<T>(site, named[1]);
            same_shape(site, state);
            check_apart(site, state, {me, "w"}, w);
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
void step_arrays(Optimizer<T>& optimizer, const py::sequence& weights, const py::sequence& gradients) {
    const char* me = "step";
    const auto& arrays = optimizer.arrays();
    if (std::size_t(py::len(gradients)) != arrays.size())
        value_error({me, "grads"},
                    "has " + std::to_string(py::len(gradients)) + " arrays, expected " + std::to_string(arrays.size()));
    std::vector<py::array> keep;
    keep.reserve(arrays.size());
    std::vector<std::pair<T*, const T*>> places;
    places.reserve(arrays.size());
    for (std::size_t i = 0; i < arrays.size(); ++i) {
        const std::string w_name = "params[" + std::to_string(i) + "]", g_name = "grads[" + std::to_string(i) + "]";
        py::array w = in_place<T>({me, w_name.c_str()}, weights[i]);
        py::array g = contiguous<T>({me, g_name.c_str()}, gradients[i]);
        if (g.ndim() != w.ndim() || !std::equal(g.shape(), g.shape() + g.ndim(), w.shape()) || std::size_t(w.size()) != arrays[i].n)
            value_error({me, g_name.c_str()}, "has shape " + shape_text(g) + ", expected " + shape_text(w));
        check_apart({me, g_name.c_str()}, g, {me, w_name.c_str()}, w);
        places.emplace_back(mutable_data<T>(w), data<T>(g));
        keep.push_back(std::move(g));
    }
    const WithoutGil released;
    const std::lock_guard held(optimizer.lock);
    for (std::size_t i = 0; i < arrays.size(); ++i) optimizer.place(i, places[i].first, places[i].second);
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
            "set_option",
            [](O& self, const std::string& who, std::size_t group, const std::string& option, double value) {
                OptimizerOptions changed = self.options(group);
                set_option(changed, option, value);
                check_options(who, self.kind(), changed);
                self.options(group) = changed;
            },
            py::arg("who"), py::arg("group"), py::arg("name"), py::arg("value"))
        .def("step", step_arrays<T>, py::arg("params"), py::arg("grads"))
        .def(
            "state",
            [](py::object self, std::size_t i, std::size_t s, const std::vector<py::ssize_t>& shape) {
                return py::array(py::dtype::of<T>(), shape, py::cast<O&>(self).arrays().at(i).states[s], self);
            },
            py::arg("param"), py::arg("state"), py::arg("shape"))
        .def_readwrite("steps", &O::steps);
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
