#include "optim/options.h"

#include <cmath>
#include <sstream>
#include <stdexcept>

namespace trainstep {

namespace {

struct NumberOption {
    const char* name;
    double OptimizerOptions::* field;
    double below;  // least <= value < below
    double least = 0;
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
    {"lr_decay", &OptimizerOptions::lr_decay, kNoBound},
    {"initial_accumulator_value", &OptimizerOptions::initial_accumulator_value, kNoBound},
    {"rho", &OptimizerOptions::rho, 1},
    {"alpha", &OptimizerOptions::alpha, kNoBound},
    {"momentum_decay", &OptimizerOptions::momentum_decay, kNoBound},
    {"eta_minus", &OptimizerOptions::eta_minus, 1},
    {"eta_plus", &OptimizerOptions::eta_plus, kNoBound, 1},
    {"step_size_min", &OptimizerOptions::step_size_min, kNoBound},
    {"step_size_max", &OptimizerOptions::step_size_max, kNoBound},
    {"lambd", &OptimizerOptions::lambd, kNoBound},
    {"t0", &OptimizerOptions::t0, kNoBound},
    {"trust_coefficient", &OptimizerOptions::trust_coefficient, kNoBound},
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
    {"amsgrad", &OptimizerOptions::amsgrad},
    {"bias_correction", &OptimizerOptions::bias_correction},
    {"eps_inside_sqrt", &OptimizerOptions::eps_inside_sqrt},
    {"centered", &OptimizerOptions::centered},
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

void check_options(const std::string& who, OptimizerKind kind, const OptimizerOptions& options, OptionName called) {
    for (const NumberOption& o : kNumbers) {
        const double value = options.*o.field;
        const bool is_share = kind == OptimizerKind::rmsprop && o.field == &OptimizerOptions::alpha;  // ASGD's is an exponent
        const double below = is_share ? 1 : o.below;
        if (value >= o.least && value < below) continue;  // false for NaN
        std::ostringstream message;
        const std::string name = called(o.name);
        message << who << ": " << name << " is " << value << ", expected " << o.least << " <= " << name << " < "
                << (below == kNoBound ? "inf" : "1");
        throw std::invalid_argument(message.str());
    }
    const auto refuse = [&](const char* why) { throw std::invalid_argument(who + ": " + why); };
    if (options.eta_minus == 0 || options.eta_plus == 1) refuse("etas are out of bounds, expected 0 < etas[0] < 1 < etas[1]");
    if (options.step_size_min > options.step_size_max) refuse("step_sizes has a least size above the largest");
    if (kind == OptimizerKind::lars && options.nesterov && options.momentum == 0) refuse("nesterov needs momentum > 0");
    if (kind != OptimizerKind::sgd) return;
    if (options.nesterov && (options.momentum == 0 || options.dampening != 0))
        refuse("nesterov needs momentum > 0 and dampening = 0");
    if (options.lr_in_velocity && (options.nesterov || options.dampening != 0))
        refuse("lr_in_velocity goes with neither nesterov nor dampening");
}

}  // namespace trainstep
