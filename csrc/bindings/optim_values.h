// Options, requests and the numbers that go with an array, from Python's values and back. `who` begins the messages of errors.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "optim/optimizer.h"

namespace trainstep {

namespace py = pybind11;

double number(const std::string& who, const std::string& name, py::handle value);
double number_above_0(const std::string& who, const std::string& name, py::handle value);
bool on_or_off(const std::string& who, const std::string& name, py::handle value);

// Python's values as the core's options: names and numbers.
using OptionValues = std::vector<std::pair<std::string, double>>;
OptionValues option_values(const std::string& who, const py::dict& values);

// Changes options: all of them or, where one cannot be taken, none.
void change_options(OptimizerOptions& options, const std::string& who, OptimizerKind kind, const OptionValues& values);
OptimizerOptions options_from(const std::string& who, OptimizerKind kind, const py::dict& values);

// How a step is to be done, from the keywords of Optimizer.step.
StepRequest request_from(double grad_scale, py::handle clip_norm, py::handle clip_value, py::handle zero_grads,
                         py::handle skip_nonfinite);

// The number of a step or of steps so far.
std::int64_t step_count(Site site, py::handle value, std::int64_t least);

// The entry of a dict under a name of ours (a string literal); null where there is none.
py::handle entry(const py::dict& dict, const char* name);

// The numbers that a rule keeps with an array: the step, and what else it needs.
StepScalars scalars_from(OptimizerKind kind, const char* who, const py::dict& values);
// The same as the keywords of one call, which it takes out of values.
StepScalars take_scalars(OptimizerKind kind, const char* who, py::handle step, py::dict& values);
void write_scalars(const py::dict& into, OptimizerKind kind, StepScalars s, const OptimizerOptions& options);
py::dict scalars_dict(OptimizerKind kind, const StepScalars& s, const OptimizerOptions& options);

}  // namespace trainstep
