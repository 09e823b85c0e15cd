#include "optim/options.h"

#include <cmath>
#include <sstream>
#include <stdexcept>

namespace trainstep {

namespace {

struct NumberOption {
    const char* name;
    double OptimizerOptions::* field;
    double below;  // 0 <= value < below
};
constexpr double kNoBound = HUGE_VAL;
constexpr NumberOption kNumbers[] = {
    {"lr", &OptimizerOptions::lr, kNoBound},
    {"weight_decay", &OptimizerOptions::weight_decay, kNoBound},
    {"l1", &OptimizerOptions::l1, kNoBound},
    {"momentum", &OptimizerOptions::momentum, kNoBound},
    {"dampening", &OptimizerOptions::dampening, kNoBound},
    {"beta1", &OptimizerOptions::beta1, 1},
    {"beta2", &OptimizerOptions::beta2, 1},
    {"eps", &OptimizerOptions::eps, kNoBound},
};

struct SwitchOption {
    const char* name;
    bool OptimizerOptions::* field;
};
constexpr SwitchOption kSwitches[] = {
    {"decoupled_weight_decay", &OptimizerOptions::decoupled_weight_decay},
    {"maximize", &OptimizerOptions::maximize},
    {"nesterov", &OptimizerOptions::nesterov},
    {"lr_in_velocity", &OptimizerOptions::lr_in_velocity},
    {"bias_correction", &OptimizerOptions::bias_correction},
    {"eps_inside_sqrt", &OptimizerOptions::eps_inside_sqrt},
};

}  // namespace

bool set_option(OptimizerOptions& options, const std::string& name, double value) {
    for (const NumberOption& o : kNumbers)
        if (name == o.name) {
            options.*o.field = value;
            return true;
        }
    for (const SwitchOption& o : kSwitches)
        if (name == o.name) {
            options.*o.field = value != 0;
            return true;
        }
    return false;
}

bool is_switch(const std::string& name) {
    for (const SwitchOption& o : kSwitches)
        if (name == o.name) return true;
    return false;
}

void check_options(const std::string& who, OptimizerKind kind, const OptimizerOptions& options) {
    for (const NumberOption& o : kNumbers) {
        const double value = options.*o.field;
        if (value >= 0 && value < o.below) continue;  // false for NaN
        std::ostringstream message;
        message << who << ": " << o.name << " is " << value << ", expected 0 <= " << o.name << " < "
                << (o.below == kNoBound ? "inf" : "1");
        throw std::invalid_argument(message.str());
    }
    if (kind != OptimizerKind::sgd) return;
    if (options.nesterov && (options.momentum == 0 || options.dampening != 0))
        throw std::invalid_argument(who + ": nesterov needs momentum > 0 and dampening = 0");
    if (options.lr_in_velocity && (options.nesterov || options.dampening != 0))
        throw std::invalid_argument(who + ": lr_in_velocity goes with neither nesterov nor dampening");
}

}  // namespace trainstep
