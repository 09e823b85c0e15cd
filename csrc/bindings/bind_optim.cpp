// trainstep.optim: the Optimizer class, and steps of arrays whose states somebody else keeps.
#include <pybind11/stl.h>

#include <algorithm>

#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "bindings/optim_values.h"
#include "bindings/tensors.h"
#include "optim/optimizer.h"
#include "runtime/isa.h"

namespace trainstep {

namespace {

struct Span {
    const char *first, *last;
    std::size_t i;
};
std::vector<Span> spans_by_address(const std::vector<Tensor>& tensors) {
    std::vector<Span> spans;
    spans.reserve(tensors.size());
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        const char* first = static_cast<const char*>(tensors[i].data);
        spans.push_back({first, first + tensors[i].n * dtype_size(*tensors[i].dtype), i});
    }
    const auto below = [](const Span& a, const Span& b) { return a.first < b.first; };
    if (!std::is_sorted(spans.begin(), spans.end(), below)) std::sort(spans.begin(), spans.end(), below);
    return spans;
}

Site param(const char* who, std::size_t i) { return {who, "params", std::ptrdiff_t(i)}; }

// The parameters, read and checked: dtype, layout, and that none shares memory with another.
std::vector<Tensor> read_parameters(const char* who, const py::list& params) {
    std::vector<Tensor> tensors;
    for (std::size_t i = 0; i < params.size(); ++i) {
        const py::object object = params[i];
        if (py::hasattr(object, "requires_grad") && py::cast<bool>(object.attr("requires_grad")))
            type_error(param(who, i), "requires grad, expected a tensor without: detach it, or use trainstep.torch");
        tensors.push_back(read_tensor(param(who, i), object));
        check_in_place(param(who, i), tensors.back());
    }
    const std::vector<Span> spans = spans_by_address(tensors);
    const Span* reaching = nullptr;  // the one that ends last so far
    for (const Span& span : spans) {
        if (reaching && span.first < reaching->last && span.first < span.last)
            value_error(param(who, std::max(span.i, reaching->i)),
                        "shares memory with " + param(who, std::min(span.i, reaching->i)).name());
        if (span.first < span.last && (!reaching || span.last > reaching->last)) reaching = &span;
    }
    return tensors;
}

std::shared_ptr<Optimizer> make_optimizer(py::handle kind_name, const std::string& who, const py::list& groups,
                                          const py::list& params, const std::vector<std::size_t>& group_of, py::handle state_dtype,
                                          std::uint64_t seed) {
    const auto kind = OptimizerKind(name_index("Optimizer", "kind", kOptimizerKindNames, kind_name));
    StateFormat format = StateFormat::native;
    std::string named;
    if (!state_dtype.is_none()) {
        named = py::isinstance<py::str>(state_dtype) ? py::cast<std::string>(state_dtype) : ascii(state_dtype);
        if (named == "bfloat16")
            format = StateFormat::bfloat16;
        else if (named == "8bit")
            format = StateFormat::eight_bits;
        else if (named != "float32" && named != "float64")
            throw py::value_error(who + ": state_dtype is " + ascii(state_dtype) +
                                  ", expected None, 'float32', 'float64', 'bfloat16' or '8bit'");
    }
    if (format == StateFormat::eight_bits && !fits_eight_bits(kind))
        throw py::value_error(who + ": state_dtype is '8bit', which this optimizer does not have; it has 'bfloat16'");
    std::vector<OptimizerOptions> options;
    for (const auto& group : groups) options.push_back(options_from(who, kind, py::cast<py::dict>(group)));
    const std::vector<Tensor> tensors = read_parameters(who.c_str(), params);
    std::vector<std::vector<Optimizer::Parameter>> grouped(options.size());
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        const Tensor& t = tensors[i];
        const bool wide = t.dtype == Dtype::float64;
        if (!named.empty() && (wide ? named != "float64" : named == "float64"))
            value_error(param(who.c_str(), i),
                        "has dtype " + t.dtype_name() + ", which does not go with state_dtype '" + named + "'");
        grouped.at(group_of.at(i)).push_back({{t.shape, t.shape + t.ndim}, t.n, *t.dtype, t.data});
    }
    auto optimizer = std::make_shared<Optimizer>(kind, format, seed);
    for (std::size_t g = 0; g < options.size(); ++g) optimizer->add_group(options[g], grouped[g]);
    return optimizer;
}

// The gradient of w, or a Tensor without an owner for None.
Tensor read_gradient(Site site, py::handle object, const Tensor& w, bool zero_grads) {
    if (object.is_none()) return {};
    Tensor g = zero_grads ? read_tensor(site, object) : read_contiguous(site, object);
    if (!g.dtype) type_error(site, "has dtype " + g.dtype_name() + ", expected float32, float64, bfloat16 or float16");
    if (!g.same_shape(w)) value_error(site, "has shape " + g.shape_text() + ", expected " + w.shape_text());
    if (zero_grads && !(g.contiguous && g.writeable))
        value_error(site, "is strided or read-only, expected a C-contiguous, writeable array to set to 0");
    static char nothing;  // an array without elements may be nowhere, and is stepped all the same
    if (!g.data) g.data = &nothing;
    return g;
}

// ValueError where a gradient shares memory with a parameter.
void check_gradients_apart(const std::vector<Tensor>& w, const std::vector<Tensor>& g) {
    const std::vector<Span> written = spans_by_address(w);
    for (std::size_t i = 0; i < g.size(); ++i) {
        if (!g[i].data) continue;
        const char *first = static_cast<const char*>(g[i].data), *last = first + g[i].n * dtype_size(*g[i].dtype);
        // The last parameter that begins before this gradient ends: the only one that can reach into it.
        const auto above =
            std::lower_bound(written.begin(), written.end(), last, [](const Span& span, const char* p) { return span.first < p; });
        if (first < last && above != written.begin() && std::prev(above)->last > first)
            value_error({"step", "grads", std::ptrdiff_t(i)},
                        "shares memory with " + param("step", std::prev(above)->i).name() + ", expected memory of its own");
    }
}

py::object step(Optimizer& optimizer, const py::list& params, py::handle gradients_in, double grad_scale, py::handle clip_norm,
                py::handle clip_value, py::handle zero_grads, py::handle skip_nonfinite) {
    const char* me = "step";
    const std::size_t count = optimizer.arrays().size();
    if (!py::isinstance<py::sequence>(gradients_in) || py::isinstance<py::str>(gradients_in) ||
        py::isinstance<py::array>(gradients_in))
        type_error({me, "grads"}, "is a " + type_name(gradients_in) + ", expected a sequence of arrays");
    const auto gradients = py::reinterpret_steal<py::object>(PySequence_Fast(gradients_in.ptr(), ""));  // a list or a tuple
    if (!gradients) throw py::error_already_set();
    if (std::size_t(PySequence_Fast_GET_SIZE(gradients.ptr())) != count)
        value_error({me, "grads"}, "has " + std::to_string(PySequence_Fast_GET_SIZE(gradients.ptr())) + " arrays, expected " +
                                       std::to_string(count));
    if (params.size() != count) value_error({me, "params"}, "has " + std::to_string(params.size()) + " arrays");
    const StepRequest request = request_from(grad_scale, clip_norm, clip_value, zero_grads, skip_nonfinite);
    std::vector<Tensor> w, g;
    w.reserve(count), g.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
        const auto here = [i](const char* list) { return Site{"step", list, std::ptrdiff_t(i)}; };
        w.push_back(read_tensor(here("params"), PyList_GET_ITEM(params.ptr(), Py_ssize_t(i))));
        check_in_place(here("params"), w[i]);
        const StepArray& known = optimizer.arrays()[i];
        if (w[i].n != known.n || *w[i].dtype != known.w_dtype)
            value_error(here("params"), "has changed since the optimizer was made: it has " + std::to_string(w[i].n) +
                                            " elements of " + w[i].dtype_name());
        g.push_back(
            read_gradient(here("grads"), PySequence_Fast_GET_ITEM(gradients.ptr(), Py_ssize_t(i)), w[i], request.zero_grads));
    }
    double norm;
    {
        const WithoutGil released;
        const std::lock_guard held(optimizer.lock);
        // What lay apart at the last step and has not moved lies apart.
        bool moved = false;
        for (std::size_t i = 0; i < count; ++i) {
            const StepArray& last = optimizer.arrays()[i];
            moved = moved || w[i].data != last.w || g[i].data != last.g || (g[i].data && *g[i].dtype != last.g_dtype);
        }
        if (moved) check_gradients_apart(w, g);
        for (std::size_t i = 0; i < count; ++i) optimizer.place(i, w[i].data, g[i].data, g[i].dtype.value_or(Dtype::float32));
        norm = optimizer.step(request);
    }
    return request.clip_norm != 0 ? py::object(py::float_(norm)) : py::none();
}

// The state of an array as somebody else keeps it: a dict of tensors and scalars under PyTorch's names. In bfloat16 or eight bits
// its tensors are of that dtype, and one in eight bits (uint8) has its exponents beside it, one a block, as <name>_exponents.
void take_state(StepArray& a, const Tensor& w, Site site, OptimizerKind kind, const py::dict& state, std::vector<Tensor>& kept) {
    const bool wide = w.dtype == Dtype::float64;
    const auto read = [&](const char* name, py::handle given) -> Tensor& {
        if (!given) value_error(site, "has no state " + std::string(name));
        kept.push_back(read_tensor(site, given));
        Tensor& t = kept.back();
        if (!t.contiguous || !t.writeable) value_error(site, "has a state " + std::string(name) + " that is strided or read-only");
        return t;
    };
    const auto refuse = [&](const char* name, const Tensor& t) {
        value_error(site, "has a state " + std::string(name) + " of dtype " + t.dtype_name() + " and shape " + t.shape_text() +
                              " for a parameter of dtype " + w.dtype_name() + " and shape " + w.shape_text());
    };
    bool first = true;
    const unsigned used = used_states(kind, *a.options);
    for (int s = 0; s < kMaxStates; ++s) {
        if (!(used >> s & 1)) continue;
        const char* name = info(kind).states[s].name;
        const Tensor& t = read(name, entry(state, name));
        const StateFormat format = t.dtype == Dtype::bfloat16 ? StateFormat::bfloat16
                                   : t.bytes == 1             ? StateFormat::eight_bits
                                                              : StateFormat::native;
        const bool fits = format == StateFormat::native ? t.dtype == (wide ? Dtype::float64 : Dtype::float32) : !wide;
        if (!fits || !t.same_shape(w) || (!first && format != a.format) ||
            (format == StateFormat::eight_bits && !fits_eight_bits(kind)))
            refuse(name, t);
        first = false;
        a.format = format;
        a.states[s] = t.data;
        if (format == StateFormat::eight_bits) {
            const std::string beside = std::string(name) + "_exponents";
            const py::object given = state.attr("get")(beside);
            const Tensor& exponents = read(beside.c_str(), given.is_none() ? py::handle() : py::handle(given));
            if (exponents.bytes != 1 || exponents.n != (w.n + kBlock - 1) / kBlock) refuse(beside.c_str(), exponents);
            a.exponents[s] = static_cast<std::uint8_t*>(exponents.data);
        }
    }
    if (w.dtype == Dtype::bfloat16) {
        const Tensor& master = read("master", entry(state, "master"));
        if (master.dtype != Dtype::float32 || !master.same_shape(w)) refuse("master", master);
        a.master = static_cast<float*>(master.data);
    }
}

// One step of arrays whose states somebody else keeps: params, grads and states (dicts) of every array, groups[group_of[i]] its
// options. The scalars in the dicts go on with it. Returns the norm or None, and whether the step was skipped.
py::tuple step_tensors(py::handle kind_name, const std::string& who, const py::list& groups,
                       const std::vector<std::size_t>& group_of, const py::list& params, const py::list& grads,
                       const py::list& states, double grad_scale, py::handle clip_norm, py::handle clip_value,
                       py::handle zero_grads, py::handle skip_nonfinite, std::uint64_t seed) {
    const auto kind = OptimizerKind(name_index("step_tensors", "kind", kOptimizerKindNames, kind_name));
    const StepRequest request = request_from(grad_scale, clip_norm, clip_value, zero_grads, skip_nonfinite);
    std::vector<OptimizerOptions> options;
    for (const auto& group : groups) options.push_back(options_from(who, kind, py::cast<py::dict>(group)));
    const std::size_t count = params.size();
    if (grads.size() != count || states.size() != count || group_of.size() != count)
        throw py::value_error(who + ": params, grads, states and group_of differ in length");
    Stepper stepper(kind, seed);
    std::vector<Tensor> w, g, kept;
    w.reserve(count), g.reserve(count), kept.reserve(count * (2 * kMaxStates + 1));
    for (std::size_t i = 0; i < count; ++i) {
        w.push_back(read_tensor(param("step", i), PyList_GET_ITEM(params.ptr(), Py_ssize_t(i))));
        check_in_place(param("step", i), w[i]);
        const py::handle gradient = PyList_GET_ITEM(grads.ptr(), Py_ssize_t(i));
        g.push_back(read_gradient({"step", "grads", std::ptrdiff_t(i)}, gradient, w[i], request.zero_grads));
        StepArray a;
        a.w = w[i].data;
        a.w_dtype = *w[i].dtype;
        a.g = g[i].data;
        a.g_dtype = g[i].dtype.value_or(Dtype::float32);
        a.n = w[i].n;
        a.options = &options.at(group_of[i]);
        const py::handle given = PyList_GET_ITEM(states.ptr(), Py_ssize_t(i));
        if (!PyDict_Check(given.ptr())) type_error({who.c_str(), "states", std::ptrdiff_t(i)}, "is no dict");
        const auto state = py::reinterpret_borrow<py::dict>(given);
        take_state(a, w[i], param("step", i), kind, state, kept);
        stepper.add(a, scalars_from(kind, who.c_str(), state));
    }
    check_gradients_apart(w, g);
    Stepper::Outcome outcome;
    {
        const WithoutGil released;
        stepper.plan();
        outcome = stepper.step(request);
    }
    for (std::size_t i = 0; i < count && !outcome.skipped; ++i) {
        if (stepper.arrays()[i].g)
            write_scalars(py::reinterpret_borrow<py::dict>(PyList_GET_ITEM(states.ptr(), Py_ssize_t(i))), kind, stepper.scalars(i),
                          *stepper.arrays()[i].options);
    }
    return py::make_tuple(request.clip_norm != 0 ? py::object(py::float_(outcome.norm)) : py::none(), outcome.skipped);
}

int state_index(OptimizerKind kind, const std::string& name) {
    for (int s = 0; s < kMaxStates; ++s)
        if (info(kind).states[s].name && name == info(kind).states[s].name) return s;
    throw py::key_error(name);
}

std::vector<py::ssize_t> shape_of(const Optimizer& o, std::size_t i) { return {o.shape(i).begin(), o.shape(i).end()}; }

py::array state_array(const py::object& self, std::size_t i, const std::string& name) {
    const auto& o = py::cast<const Optimizer&>(self);
    const StepArray& a = o.arrays().at(i);
    if (name == "master" && a.master) return py::array(py::dtype::of<float>(), shape_of(o, i), a.master, self);
    const int s = state_index(o.kind(), name);
    if (!a.states[s]) throw py::key_error(name);
    const bool wide = a.w_dtype == Dtype::float64;
    if (a.format == StateFormat::native)
        return py::array(wide ? py::dtype::of<double>() : py::dtype::of<float>(), shape_of(o, i), a.states[s], self);
    py::array_t<float> copy(shape_of(o, i));
    kernels().load_state(copy.mutable_data(), o.low_bit(i, s), a.n);
    return copy;
}

void set_state(const py::object& self, std::size_t i, const std::string& name, const py::array& values) {
    auto& o = py::cast<Optimizer&>(self);
    {
        const WithoutGil released;
        const std::lock_guard held(o.lock);
        o.allocate_states();
    }
    const StepArray& a = o.arrays().at(i);
    if (a.format == StateFormat::native || name == "master") {
        state_array(self, i, name)[py::ellipsis()] = values;
    } else {
        const py::array_t<float, py::array::c_style> own(values);
        kernels().store_state(o.low_bit(i, state_index(o.kind(), name)), own.data(), a.n);
    }
}

py::tuple used_names(const Optimizer& o, std::size_t i) {
    py::list names;
    const unsigned used = o.arrays().at(i).options ? o.used(i) : 0;
    for (int s = 0; s < kMaxStates; ++s)
        if (used >> s & 1) names.append(info(o.kind()).states[s].name);
    if (o.arrays()[i].master) names.append("master");
    return py::tuple(names);
}

}  // namespace

void bind_optim(py::module_& m) {
    m.attr("optimizers") = names_tuple(kOptimizerKindNames);
    py::dict states;
    py::list low_bit, whole_tensor;
    for (std::size_t k = 0; k < kOptimizerKindCount; ++k) {
        const py::str name(kOptimizerKindNames[k].data(), kOptimizerKindNames[k].size());
        py::list names;
        for (const StateInfo& state : info(OptimizerKind(k)).states)
            if (state.name) names.append(state.name);
        states[name] = py::tuple(names);
        if (fits_eight_bits(OptimizerKind(k))) low_bit.append(name);
        if (has_trust_ratio(OptimizerKind(k))) whole_tensor.append(name);
    }
    m.attr("optimizer_states") = states;
    m.attr("low_bit_optimizers") = py::tuple(low_bit);
    m.attr("whole_tensor_optimizers") = py::tuple(whole_tensor);
    py::class_<Optimizer, std::shared_ptr<Optimizer>>(m, "Optimizer")
        .def(py::init(&make_optimizer), py::arg("kind"), py::arg("who"), py::arg("groups"), py::arg("params"), py::arg("group_of"),
             py::arg("state_dtype"), py::arg("seed"))
        .def(
            "set_options",
            [](Optimizer& self, const std::string& who, std::size_t group, const py::dict& values) {
                const OptionValues changed = option_values(who, values);
                const WithoutGil released;
                const std::lock_guard held(self.lock);  // not in the middle of a step
                change_options(self.options(group), who, self.kind(), changed);
            },
            py::arg("who"), py::arg("group"), py::arg("values"))
        .def("step", step, py::arg("params"), py::arg("grads"), py::arg("grad_scale") = 1.0, py::arg("clip_norm") = py::none(),
             py::arg("clip_value") = py::none(), py::arg("zero_grads") = false, py::arg("skip_nonfinite") = false)
        .def("used_states", used_names, py::arg("param"))
        .def("state", state_array, py::arg("param"), py::arg("name"))
        .def("set_state", set_state, py::arg("param"), py::arg("name"), py::arg("values"))
        .def(
            "scalars",
            [](Optimizer& self, std::size_t i) { return scalars_dict(self.kind(), self.scalars(i), *self.arrays().at(i).options); },
            py::arg("param"))
        .def(
            "set_scalars",
            [](Optimizer& self, std::size_t i, const py::dict& values) {
                const StepScalars scalars = scalars_from(self.kind(), "set_scalars", values);
                const WithoutGil released;
                const std::lock_guard held(self.lock);
                if (i >= self.arrays().size()) throw py::index_error("set_scalars: no such parameter");
                self.set_scalars(i, scalars);
            },
            py::arg("param"), py::arg("values"))
        .def(
            "shape", [](const Optimizer& self, std::size_t i) { return py::tuple(py::cast(self.shape(i))); }, py::arg("param"))
        .def(
            "dtype",
            [](const Optimizer& self, std::size_t i) {
                return self.arrays().at(i).w_dtype == Dtype::float64 ? "float64" : "float32";
            },
            py::arg("param"))
        .def_property_readonly("steps", [](const Optimizer& self) { return self.steps.load(); })
        .def_property_readonly("skipped", [](const Optimizer& self) { return self.skipped.load(); })
        .def_property_readonly("state_nbytes", &Optimizer::state_bytes);
    m.def("step_tensors", step_tensors, py::arg("kind"), py::arg("who"), py::arg("groups"), py::arg("group_of"), py::arg("params"),
          py::arg("grads"), py::arg("states"), py::arg("grad_scale") = 1.0, py::arg("clip_norm") = py::none(),
          py::arg("clip_value") = py::none(), py::arg("zero_grads") = false, py::arg("skip_nonfinite") = false,
          py::arg("seed") = 0);
}

}  // namespace trainstep
