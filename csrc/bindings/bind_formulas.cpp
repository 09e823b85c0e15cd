// trainstep.optim: the bare formulas, one update of one array with the options of the call alone.
#include <pybind11/stl.h>

#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "bindings/optim_values.h"
#include "bindings/tensors.h"
#include "ops/optimizer_step.h"
#include "optim/terms.h"

namespace trainstep {

namespace {

// One update of one array: w, its states and its gradient g, with the options of this call alone. Returns the scalars after it.
py::dict step_array(py::handle name, const char* me, py::handle w_in, py::handle g_in, const py::tuple& states_in,
                    py::handle step_in, const py::dict& values) {
    const auto kind = OptimizerKind(name_index(me, "kind", kOptimizerKindNames, name));
    py::dict own = values;
    StepScalars scalars = take_scalars(kind, me, step_in, own);
    const OptimizerOptions options = options_from(me, kind, own);
    const Tensor w = read_tensor({me, "w"}, w_in), g = read_contiguous({me, "g"}, g_in);
    const auto same = [&](Site site, const Tensor& a) {
        if (a.dtype != w.dtype) type_error(site, "has dtype " + a.dtype_name() + ", expected " + w.dtype_name() + " as w has");
        if (!a.same_shape(w)) value_error(site, "has shape " + a.shape_text() + ", expected " + w.shape_text() + " as w has");
    };
    struct Named {
        Site site;
        const Tensor* tensor;
    };
    std::vector<Named> seen{{{me, "w"}, &w}, {{me, "g"}, &g}};
    const auto apart = [&](Site site, const Tensor& a) {
        const std::size_t bytes = a.n * dtype_size(*a.dtype);
        for (const Named& other : seen) {
            const char *first = static_cast<char*>(a.data), *others = static_cast<char*>(other.tensor->data);
            if (bytes && first < others + bytes && others < first + bytes)
                value_error(site, "shares memory with " + other.site.name() + ", expected memory of its own");
        }
    };
    if (w.dtype != Dtype::float32 && w.dtype != Dtype::float64)
        type_error({me, "w"}, "has dtype " + w.dtype_name() + ", expected float32 or float64");
    check_in_place({me, "w"}, w);
    same({me, "g"}, g);
    seen.pop_back();
    apart({me, "g"}, g);
    seen.push_back({{me, "g"}, &g});
    std::vector<StepArray> arrays(1);
    StepArray& array = arrays[0];
    Tensor states[kMaxStates];
    std::string names[kMaxStates];
    for (std::size_t s = 0; s < py::len(states_in); ++s) {
        const py::tuple named = states_in[s];  // (name, array)
        names[s] = py::cast<std::string>(named[0]);
        const Site site{me, names[s].c_str()};
        if (py::object(named[1]).is_none()) {
            if (used_states(kind, options) >> s & 1)
                value_error(site, "is None, expected an array of the shape of w under these options");
            continue;
        }
        states[s] = read_tensor(site, named[1]);
        same(site, states[s]);
        check_in_place(site, states[s]);
        apart(site, states[s]);
        seen.push_back({site, &states[s]});
        array.states[s] = states[s].data;
    }
    array.w = w.data;
    array.g = g.data;
    array.w_dtype = array.g_dtype = *w.dtype;
    array.n = w.n;
    array.options = &options;
    {
        const WithoutGil released;
        array.terms = next_step(kind, options, scalars);
        std::vector<SquareSums> sums;
        optimizer_step(kind, arrays, StepPlan({w.n}), sums);
    }
    return scalars_dict(kind, scalars, options);
}

}  // namespace

void bind_formulas(py::module_& m) {
    m.def("step_array", step_array, py::arg("kind"), py::arg("who"), py::arg("w"), py::arg("g"), py::arg("states"), py::arg("step"),
          py::arg("options"));
}

}  // namespace trainstep
