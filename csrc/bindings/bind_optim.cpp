// trainstep.optim: the Optimizer class of each dtype, and the bare formulas.
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "bindings/tensors.h"
#include "optim/optimizer.h"
#include "optim/options.h"
#include "optim/terms.h"
#include "runtime/isa.h"

namespace trainstep {

namespace {

double number(const std::string& who, const std::string& name, py::handle value) {
    if (PyFloat_CheckExact(value.ptr()) && !is_switch(name)) return PyFloat_AS_DOUBLE(value.ptr());
    if (PyBool_Check(value.ptr()) && is_switch(name)) return value.ptr() == Py_True;
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

// Options that Python has as a pair.
struct PairOption {
    const char *name, *first, *second;
};
constexpr PairOption kPairs[] = {
    {"betas", "beta1", "beta2"}, {"etas", "eta_minus", "eta_plus"}, {"step_sizes", "step_size_min", "step_size_max"}};

// Python's values as the core's options.
OptionValues option_values(const std::string& who, const py::dict& values) {
    OptionValues result;
    for (const auto& [key, value] : values) {
        const auto name = py::cast<std::string>(key);
        const auto* pair = std::find_if(std::begin(kPairs), std::end(kPairs), [&](const PairOption& p) { return name == p.name; });
        if (pair == std::end(kPairs)) {
            result.emplace_back(name, number(who, name, value));
            continue;
        }
        if (!py::isinstance<py::sequence>(value) || py::len(value) != 2)
            throw py::value_error(who + ": " + name + " is " + std::string(py::repr(value)) + ", expected two numbers");
        const auto both = py::reinterpret_borrow<py::sequence>(value);
        result.emplace_back(pair->first, number(who, name + "[0]", both[0]));
        result.emplace_back(pair->second, number(who, name + "[1]", both[1]));
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

// The number of a step or of steps so far.
std::int64_t count(Site site, py::handle value, std::int64_t least) {
    if (!PyIndex_Check(value.ptr()) || PyBool_Check(value.ptr()))
        type_error(site, "is a " + type_name(value) + ", expected an int");
    const auto index = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
    if (!index) throw py::error_already_set();
    int overflow = 0;
    const std::int64_t n = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
    if (n < least || overflow) value_error(site, "is " + ascii(index) + ", expected " + std::to_string(least) + " to 2^63 - 1");
    return n;
}

// A name of ours as a Python string, made once. Names are string literals, so that their address tells them apart.
PyObject* key(const char* name) {
    static thread_local std::vector<std::pair<const char*, PyObject*>> known;
    for (const auto& [literal, string] : known)
        if (literal == name) return string;
    known.emplace_back(name, PyUnicode_InternFromString(name));
    return known.back().second;
}
// The entry of a dict under a name of ours; null where there is none.
py::handle entry(const py::dict& dict, const char* name) { return PyDict_GetItemWithError(dict.ptr(), key(name)); }

// The numbers that a rule keeps with an array besides the step: f(name, number) for each.
template <class F>
void for_each_scalar(OptimizerKind kind, StepScalars& s, F f) {
    if (kind == OptimizerKind::nadam) f("mu_product", s.mu_product);
    if (kind == OptimizerKind::asgd) f("eta", s.eta), f("mu", s.mu);
}
double scalar(const std::string& who, const char* name, py::handle value) {
    const double x = number(who, name, value), most = name == std::string("eta") ? HUGE_VAL : 1;
    if (x >= 0 && x <= most && std::isfinite(x)) return x;
    throw py::value_error(who + ": " + name + " is " + ascii(value) + ", expected 0 <= " + name + (most == 1 ? " <= 1" : " < inf"));
}
void write_scalars(const py::dict& into, OptimizerKind kind, StepScalars s, const OptimizerOptions& options) {
    const auto set = [&](const char* name, const py::object& value) {
        if (PyDict_SetItem(into.ptr(), key(name), value.ptr()) != 0) throw py::error_already_set();
    };
    set("step", py::int_(s.step));
    if (s.eta < 0) s.eta = options.lr;
    for_each_scalar(kind, s, [&](const char* name, double value) { set(name, py::float_(value)); });
}
py::dict scalars_dict(OptimizerKind kind, const StepScalars& s, const OptimizerOptions& options) {
    py::dict result;
    write_scalars(result, kind, s, options);
    return result;
}
StepScalars scalars_from(OptimizerKind kind, const char* who, const py::dict& values) {
    StepScalars s;
    const py::handle step = entry(values, "step");
    if (!step) throw py::value_error(std::string(who) + ": the state has no step");
    s.step = count({who, "step"}, step, 0);
    for_each_scalar(kind, s, [&](const char* name, double& value) {
        if (const py::handle given = entry(values, name)) value = scalar(who, name, given);
    });
    return s;
}

// One update of one array: w, its states and its gradient g, with the options of this call alone. Returns the scalars after it.
py::dict step_array(py::handle name, const char* me, py::handle w_in, py::handle g_in, const py::tuple& states_in,
                    py::handle step_in, const py::dict& values) {
    const auto kind = OptimizerKind(name_index(me, "kind", kOptimizerKindNames, name));
    StepScalars scalars;
    scalars.step = count({me, "step"}, step_in, 1) - 1;
    py::dict own = values;
    for_each_scalar(kind, scalars, [&](const char* scalar_name, double& value) {
        if (!own.contains(scalar_name)) return;
        if (own.is(values)) own = values.attr("copy")();
        value = scalar(me, scalar_name, own.attr("pop")(scalar_name));
    });
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

// --- the Optimizer class -------------------------------------------------------------------------------------------------------

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

// A limit to clip at, or 0 for None.
double limit(const char* name, py::handle value) {
    if (value.is_none()) return 0;
    const double x = number("step", name, value);
    if (!(x > 0))
        throw py::value_error("step: " + std::string(name) + " is " + ascii(value) + ", expected a number above 0, or None");
    return x;
}

StepRequest request_from(double grad_scale, py::handle clip_norm, py::handle clip_value, bool zero_grads, bool skip_nonfinite) {
    const StepRequest request{grad_scale, limit("clip_norm", clip_norm), limit("clip_value", clip_value), zero_grads,
                              skip_nonfinite};
    if (request.clip_norm != 0 && request.clip_value != 0)
        throw py::value_error("step: clip_norm and clip_value are both given, expected one of them");
    if (!std::isfinite(grad_scale))
        throw py::value_error("step: grad_scale is " + std::string(py::str(py::float_(grad_scale))) + ", expected a finite number");
    return request;
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
                py::handle clip_value, bool zero_grads, bool skip_nonfinite) {
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
        g.push_back(read_gradient(here("grads"), PySequence_Fast_GET_ITEM(gradients.ptr(), Py_ssize_t(i)), w[i], zero_grads));
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
                       const py::list& states, double grad_scale, py::handle clip_norm, py::handle clip_value, bool zero_grads,
                       bool skip_nonfinite, std::uint64_t seed) {
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
        g.push_back(read_gradient({"step", "grads", std::ptrdiff_t(i)}, gradient, w[i], zero_grads));
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

// --- norms and clipping --------------------------------------------------------------------------------------------------------

struct Arrays {
    std::vector<Tensor> tensors;
    std::vector<NormArray> norms;
    StepPlan plan;
};
Arrays float_arrays(const char* me, py::handle object, bool in_place) {
    if (!py::isinstance<py::iterable>(object) || py::isinstance<py::str>(object) || py::isinstance<py::array>(object) ||
        py::hasattr(object, "__dlpack__"))
        type_error({me, "arrays"}, "is a " + type_name(object) + ", expected a list of arrays");
    Arrays all;
    std::vector<std::size_t> sizes;
    for (const py::handle item : py::reinterpret_borrow<py::iterable>(object)) {
        const Site site{me, "arrays", std::ptrdiff_t(all.tensors.size())};
        Tensor t = in_place ? read_tensor(site, item) : read_contiguous(site, item);
        if (t.dtype != Dtype::float32 && t.dtype != Dtype::float64)
            type_error(site, "has dtype " + t.dtype_name() + ", expected float32 or float64");
        if (in_place) check_in_place(site, t);
        all.norms.push_back({t.data, *t.dtype});
        sizes.push_back(t.n);
        all.tensors.push_back(std::move(t));
    }
    all.plan = StepPlan(sizes);
    return all;
}
double norm_of(const Arrays& arrays) {
    std::vector<double> sums;
    return global_norm(arrays.norms, arrays.plan, sums);
}
template <class F>
void for_each_piece_in_place(const Arrays& arrays, F f) {
    constexpr double kNsPerElement = 0.1;
    parallel_for(arrays.plan.pieces(), 1, kNsPerElement * double(arrays.plan.length()) / double(arrays.plan.pieces() + 1),
                 [&](std::size_t begin, std::size_t end) {
                     for (std::size_t i = begin; i < end; ++i) {
                         const StepPlan::Piece& piece = arrays.plan.piece(i);
                         const Tensor& t = arrays.tensors[piece.array];
                         const std::size_t n = piece.elements.end - piece.elements.begin;
                         if (t.dtype == Dtype::float32)
                             f(piece.array, static_cast<float*>(t.data) + piece.elements.begin, n);
                         else
                             f(piece.array, static_cast<double*>(t.data) + piece.elements.begin, n);
                     }
                 });
}
double positive(const char* me, const char* name, py::handle value) {
    const double x = number(me, name, value);
    if (!(x > 0)) throw py::value_error(std::string(me) + ": " + name + " is " + ascii(value) + ", expected a number above 0");
    return x;
}
void multiply(const Arrays& arrays, const std::vector<double>& factors) {
    for_each_piece_in_place(arrays, [&]<class T>(std::size_t array, T* x, std::size_t n) {
        if (factors[array] != 1) kernels().of<T>().scale(x, n, T(factors[array]));
    });
}

}  // namespace

void bind_optim(py::module_& m) {
    m.attr("optimizers") = names_tuple(kOptimizerKindNames);
    py::dict states;
    py::list low_bit;
    for (std::size_t k = 0; k < kOptimizerKindCount; ++k) {
        const py::str name(kOptimizerKindNames[k].data(), kOptimizerKindNames[k].size());
        py::list names;
        for (const StateInfo& state : info(OptimizerKind(k)).states)
            if (state.name) names.append(state.name);
        states[name] = py::tuple(names);
        if (fits_eight_bits(OptimizerKind(k))) low_bit.append(name);
    }
    m.attr("optimizer_states") = states;
    m.attr("low_bit_optimizers") = py::tuple(low_bit);
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
    m.def("step_array", step_array, py::arg("kind"), py::arg("who"), py::arg("w"), py::arg("g"), py::arg("states"), py::arg("step"),
          py::arg("options"));

    m.def("step_tensors", step_tensors, py::arg("kind"), py::arg("who"), py::arg("groups"), py::arg("group_of"), py::arg("params"),
          py::arg("grads"), py::arg("states"), py::arg("grad_scale") = 1.0, py::arg("clip_norm") = py::none(),
          py::arg("clip_value") = py::none(), py::arg("zero_grads") = false, py::arg("skip_nonfinite") = false,
          py::arg("seed") = 0);

    m.def(
        "global_norm",
        [](py::handle arrays_in) {
            const Arrays arrays = float_arrays("global_norm", arrays_in, false);
            const WithoutGil released;
            return norm_of(arrays);
        },
        py::arg("arrays"));
    m.def(
        "clip_by_global_norm_",
        [](py::handle arrays_in, py::handle max_norm) {
            const double most = positive("clip_by_global_norm_", "max_norm", max_norm);
            const Arrays arrays = float_arrays("clip_by_global_norm_", arrays_in, true);
            const WithoutGil released;
            const double norm = norm_of(arrays);
            multiply(arrays, std::vector<double>(arrays.tensors.size(), clip_factor(most, norm)));
            return norm;
        },
        py::arg("arrays"), py::arg("max_norm"));
    m.def(
        "clip_by_norm_",
        [](py::handle arrays_in, py::handle max_norm) {
            const double most = positive("clip_by_norm_", "max_norm", max_norm);
            const Arrays arrays = float_arrays("clip_by_norm_", arrays_in, true);
            std::vector<double> norms, factors;
            {
                const WithoutGil released;
                for (const Tensor& t : arrays.tensors) {
                    std::vector<double> sums;
                    norms.push_back(global_norm({{t.data, *t.dtype}}, StepPlan({t.n}), sums));
                    factors.push_back(clip_factor(most, norms.back()));
                }
                multiply(arrays, factors);
            }
            return norms;
        },
        py::arg("arrays"), py::arg("max_norm"));
    m.def(
        "clip_by_value_",
        [](py::handle arrays_in, py::handle limit) {
            const double most = positive("clip_by_value_", "limit", limit);
            const Arrays arrays = float_arrays("clip_by_value_", arrays_in, true);
            const WithoutGil released;
            for_each_piece_in_place(arrays,
                                    [&]<class T>(std::size_t, T* x, std::size_t n) { kernels().of<T>().clamp(x, n, T(most)); });
        },
        py::arg("arrays"), py::arg("limit"));
}

}  // namespace trainstep
