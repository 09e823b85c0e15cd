// The options of an optimizer by name, and the values that each may have.
#pragma once

#include <string>

#include "kernels/optimizers.h"

namespace trainstep {

// Sets one option; false where no optimizer has an option of that name.
bool set_option(OptimizerOptions& options, const std::string& name, double value);

// Whether an option is either on or off.
bool is_switch(const std::string& name);

// Throws std::invalid_argument, naming the option as the caller calls it, its value and what was wanted; `who` begins the message.
using OptionName = std::string (*)(const char* name);
inline std::string own_name(const char* name) { return name; }
void check_options(const std::string& who, OptimizerKind kind, const OptimizerOptions& options, OptionName called = own_name);

}  // namespace trainstep
