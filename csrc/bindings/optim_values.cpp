#include "bindings/optim_values.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string_view>

#include "bindings/bind.h"
#include "optim/options.h"

namespace trainstep {

namespace {

// Takes what Python's float() takes but strings and, for a number, truth values.
double as_double(const std::string& who, const std::string& name, py::handle value, bool is_bool) {
    const bool truth = PyBool_Check(value.ptr()) || type_name(value) == "bool";  // NumPy's too
    const bool refused = py::isinstance<py::str>(value) || (truth && !is_bool);
    const double x = refused ? 0 : PyFloat_AsDouble(value.ptr());
    const bool too_large = PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_OverflowError);
    if (refused || (PyErr_Occurred() && !too_large)) {
        PyErr_Clear();
        throw py::type_error(who + ": " + name + " is a " + type_name(value) + ", expected a " + (is_bool ? "bool" : "number"));
    }
    PyErr_Clear();
    if (too_large) throw py::value_error(who + ": " + name + " is too large an int, expected a number");
    return x;
}

// Options that Python has as a pair.
struct PairOption {
    const char *name, *first, *second;
};
constexpr PairOption kPairs[] = {
    {"betas", "beta1", "beta2"}, {"etas", "eta_minus", "eta_plus"}, {"step_sizes", "step_size_min", "step_size_max"}};

// An option as Python calls it.
std::string called_in_python(const char* name) {
    for (const PairOption& p : kPairs) {
        if (name == std::string_view(p.first)) return std::string(p.name) + "[0]";
        if (name == std::string_view(p.second)) return std::string(p.name) + "[1]";
    }
    return name;
}

// A name of ours as a Python string, made once. Names are string literals, so that their address tells them apart.
PyObject* key(const char* name) {
    static thread_local std::vector<std::pair<const char*, PyObject*>> known;
    for (const auto& [literal, string] : known)
        if (literal == name) return string;
    known.emplace_back(name, PyUnicode_InternFromString(name));
    return known.back().second;
}

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
// A limit to clip at, or 0 for None.
double limit(const char* name, py::handle value) {
    if (value.is_none()) return 0;
    const double x = number("step", name, value);
    if (!(x > 0))
        throw py::value_error("step: " + std::string(name) + " is " + ascii(value) + ", expected a number above 0, or None");
    return x;
}

}  // namespace

double number(const std::string& who, const std::string& name, py::handle value) {
    return PyFloat_CheckExact(value.ptr()) ? PyFloat_AS_DOUBLE(value.ptr()) : as_double(who, name, value, false);
}

double number_above_0(const std::string& who, const std::string& name, py::handle value) {
    const double x = number(who, name, value);
    if (!(x > 0)) throw py::value_error(who + ": " + name + " is " + ascii(value) + ", expected a number above 0");
    return x;
}

bool on_or_off(const std::string& who, const std::string& name, py::handle value) {
    if (PyBool_Check(value.ptr())) return value.ptr() == Py_True;
    const double x = as_double(who, name, value, true);
    if (x != 0 && x != 1) throw py::value_error(who + ": " + name + " is " + ascii(value) + ", expected a bool");
    return x != 0;
}

OptionValues option_values(const std::string& who, const py::dict& values) {
    OptionValues result;
    for (const auto& [key, value] : values) {
        const auto name = py::cast<std::string>(key);
        const auto* pair = std::find_if(std::begin(kPairs), std::end(kPairs), [&](const PairOption& p) { return name == p.name; });
        if (pair == std::end(kPairs)) {
            result.emplace_back(name, is_switch(name) ? on_or_off(who, name, value) : number(who, name, value));
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

void change_options(OptimizerOptions& options, const std::string& who, OptimizerKind kind, const OptionValues& values) {
    OptimizerOptions changed = options;
    for (const auto& [name, value] : values)
        if (!set_option(changed, name, value)) throw std::invalid_argument(who + ": no optimizer option is named '" + name + "'");
    check_options(who, kind, changed, called_in_python);
    options = changed;
}

OptimizerOptions options_from(const std::string& who, OptimizerKind kind, const py::dict& values) {
    OptimizerOptions options;
    change_options(options, who, kind, option_values(who, values));
    return options;
}

std::int64_t step_count(Site site, py::handle value, std::int64_t least) {
    if (!PyIndex_Check(value.ptr()) || PyBool_Check(value.ptr()))
        type_error(site, "is a " + type_name(value) + ", expected an int");
    const auto index = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
    if (!index) throw py::error_already_set();
    int overflow = 0;
    const std::int64_t n = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
    if (n < least || overflow) value_error(site, "is " + ascii(index) + ", expected " + std::to_string(least) + " to 2^63 - 1");
    return n;
}

py::handle entry(const py::dict& dict, const char* name) { return PyDict_GetItemWithError(dict.ptr(), key(name)); }

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
    s.step = step_count({who, "step"}, step, 0);
    for_each_scalar(kind, s, [&](const char* name, double& value) {
        if (const py::handle given = entry(values, name)) value = scalar(who, name, given);
    });
    return s;
}

StepScalars take_scalars(OptimizerKind kind, const char* who, py::handle step, py::dict& values) {
    StepScalars s;
    s.step = step_count({who, "step"}, step, 1) - 1;
    const py::dict given = values;
    for_each_scalar(kind, s, [&](const char* name, double& value) {
        if (!values.contains(name)) return;
        if (values.is(given)) values = given.attr("copy")();
        value = scalar(who, name, values.attr("pop")(name));
    });
    return s;
}

StepRequest request_from(double grad_scale, py::handle clip_norm, py::handle clip_value, py::handle zero_grads,
                         py::handle skip_nonfinite) {
    const StepRequest request{grad_scale, limit("clip_norm", clip_norm), limit("clip_value", clip_value),
                              on_or_off("step", "zero_grads", zero_grads), on_or_off("step", "skip_nonfinite", skip_nonfinite)};
    if (request.clip_norm != 0 && request.clip_value != 0)
        throw py::value_error("step: clip_norm and clip_value are both given, expected one of them");
    if (!std::isfinite(grad_scale))
        throw py::value_error("step: grad_scale is " + std::string(py::str(py::float_(grad_scale))) + ", expected a finite number");
    return request;
}

}  // namespace trainstep
