// The C ABI of include/trainstep.h: optimizer steps on pointers, through a table that Python has in a capsule.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/bind.h"
#include "include/trainstep.h"
#include "ops/optimizer_step.h"
#include "optim/options.h"
#include "optim/terms.h"

namespace trainstep {

namespace {

// The header's names are those of the lists, in their order.
#define TRAINSTEP_SAME(name, ...) static_assert(int(trainstep_##name) == int(OptimizerKind::name));
TRAINSTEP_OPTIMIZERS(TRAINSTEP_SAME)
#undef TRAINSTEP_SAME
#define TRAINSTEP_SAME(name) static_assert(int(trainstep_##name) == int(Dtype::name));
TRAINSTEP_DTYPES(TRAINSTEP_SAME)
#undef TRAINSTEP_SAME
static_assert(int(trainstep_lars) + 1 == kOptimizerKindCount && TRAINSTEP_MAX_STATES == kMaxStates);

// --- options -------------------------------------------------------------------------------------------------------------------

using enum OptimizerKind;

template <class... Kinds>
constexpr unsigned of(Kinds... kinds) {
    return ((1u << int(kinds)) | ...);
}
constexpr unsigned kAll = (1u << kOptimizerKindCount) - 1;

// Every option, which is called the same in trainstep_options and in OptimizerOptions, and the rules that have it.
#define TRAINSTEP_OPTIONS(X)                                                       \
    X(lr, kAll & ~of(rprop))                                                       \
    X(weight_decay, kAll & ~of(rprop))                                             \
    X(l1, kAll)                                                                    \
    X(maximize, kAll)                                                              \
    X(decoupled_weight_decay, of(adam, nadam, radam))                              \
    X(momentum, of(sgd, rmsprop, lars))                                            \
    X(dampening, of(sgd))                                                          \
    X(nesterov, of(sgd, lars))                                                     \
    X(lr_in_velocity, of(sgd))                                                     \
    X(beta1, of(adam, adamax, nadam, radam, lion, lamb))                           \
    X(beta2, of(adam, adamax, nadam, radam, lion, lamb))                           \
    X(eps, of(adagrad, adadelta, rmsprop, adam, adamax, nadam, radam, lamb, lars)) \
    X(amsgrad, of(adam))                                                           \
    X(bias_correction, of(adam, lamb))                                             \
    X(eps_inside_sqrt, of(adagrad, rmsprop, adam))                                 \
    X(lr_decay, of(adagrad))                                                       \
    X(rho, of(adadelta))                                                           \
    X(alpha, of(rmsprop, asgd))                                                    \
    X(centered, of(rmsprop))                                                       \
    X(momentum_decay, of(nadam))                                                   \
    X(eta_minus, of(rprop))                                                        \
    X(eta_plus, of(rprop))                                                         \
    X(step_size_min, of(rprop))                                                    \
    X(step_size_max, of(rprop))                                                    \
    X(lambd, of(asgd))                                                             \
    X(t0, of(asgd))                                                                \
    X(trust_coefficient, of(lars))

constexpr OptimizerOptions core_defaults(OptimizerKind kind) {
    OptimizerOptions o;
    if (kind == adagrad || kind == rmsprop || kind == asgd) o.lr = 1e-2;
    if (kind == adamax || kind == nadam) o.lr = 2e-3;
    if (kind == adagrad) o.eps = 1e-10;
    if (kind == adadelta) o.lr = 1, o.eps = 1e-6;
    if (kind == asgd) o.alpha = 0.75;
    if (kind == lion) o.lr = 1e-4, o.beta2 = 0.99;
    if (kind == lamb) o.eps = 1e-6;
    if (kind == lars) o.lr = 0.1, o.momentum = 0.9, o.eps = 0;
    return o;
}

constexpr trainstep_options defaults(OptimizerKind kind) {
    const OptimizerOptions o = core_defaults(kind);
    trainstep_options c{};
    c.size = sizeof c;
    c.grad_scale = 1;
#define TRAINSTEP_GIVE(name, rules) c.name = o.name;
    TRAINSTEP_OPTIONS(TRAINSTEP_GIVE)
#undef TRAINSTEP_GIVE
    return c;
}
#define TRAINSTEP_DEFAULTS(name, ...) defaults(name),
constexpr trainstep_options kDefaults[] = {TRAINSTEP_OPTIMIZERS(TRAINSTEP_DEFAULTS)};
#undef TRAINSTEP_DEFAULTS

thread_local char option_error[200] = "an option is not as it must be";

int bad_option(const char* text) {
    std::snprintf(option_error, sizeof option_error, "%s", text);
    return TRAINSTEP_BAD_OPTION;
}

// The sizes of trainstep_options so far: a caller's may end before the newest fields, which then have their defaults.
constexpr std::size_t kFirstSize = offsetof(trainstep_options, reserved) + sizeof(int);
bool is_known_size(std::size_t size) { return size >= kFirstSize && size <= sizeof(trainstep_options); }

int read_options(OptimizerKind kind, const trainstep_options& given, OptimizerOptions& o) {
    const std::string_view rule = kOptimizerKindNames[int(kind)];
    if (!is_known_size(given.size)) return bad_option("the options were not filled by trainstep_options_init");
    const trainstep_options& usual = kDefaults[int(kind)];
    trainstep_options c = usual;
    std::memcpy(&c, &given, given.size);
    const auto foreign = [&](const char* name) { return bad_option((std::string(rule) + " has no option " + name).c_str()); };
#define TRAINSTEP_TAKE(name, rules)                                                 \
    if (!((rules) >> int(kind) & 1) && c.name != usual.name) return foreign(#name); \
    o.name = c.name;
    TRAINSTEP_OPTIONS(TRAINSTEP_TAKE)
#undef TRAINSTEP_TAKE
    if (!std::isfinite(c.grad_scale)) return bad_option("grad_scale is not finite");
    if (!(c.clip_value >= 0)) return bad_option("clip_value is not a number of at least 0");
    if (c.reserved != 0) return bad_option("reserved is not 0");
    try {
        check_options(std::string(rule), kind, o);
    } catch (const std::invalid_argument& e) {
        return bad_option(e.what());
    }
    return TRAINSTEP_OK;
}

int options_init(int kind, trainstep_options* options, std::size_t size) noexcept {
    if (kind < 0 || kind >= int(kOptimizerKindCount)) return TRAINSTEP_BAD_KIND;
    if (!options) return TRAINSTEP_NULL;
    if (!is_known_size(size))
        return bad_option("trainstep_options of the header has another size than the installed trainstep knows");
    std::memcpy(options, &kDefaults[kind], size);
    options->size = size;
    return TRAINSTEP_OK;
}

// --- arrays --------------------------------------------------------------------------------------------------------------------

// The arrays of one call, checked one after the other.
class Arrays {
  public:
    explicit Arrays(std::size_t n) : n_(n) {}

    int check(const void* data, std::size_t element_size) {
        if (n_ == 0) return TRAINSTEP_OK;
        if (!data) return TRAINSTEP_NULL;
        const auto first = reinterpret_cast<std::uintptr_t>(data);
        if (first % element_size != 0) return TRAINSTEP_UNALIGNED;
        if (n_ > (UINTPTR_MAX - first) / element_size) return TRAINSTEP_BAD_SIZE;
        const std::uintptr_t last = first + n_ * element_size;
        for (int i = 0; i < count_; ++i)
            if (first < seen_[i].last && seen_[i].first < last) return TRAINSTEP_OVERLAP;
        seen_[count_++] = {first, last};
        return TRAINSTEP_OK;
    }

  private:
    struct {
        std::uintptr_t first, last;
    } seen_[2 + kMaxStates];
    int count_ = 0;
    std::size_t n_;
};

bool is_dtype(int dtype) { return dtype >= 0 && dtype < int(kDtypeCount); }

// Where the array's scalars stand before step number c.step.
int read_scalars(OptimizerKind kind, const trainstep_scalars& c, const OptimizerOptions& options, StepScalars& scalars) {
    if (c.step < 1 || c.step == INT64_MAX) return TRAINSTEP_BAD_STEP;
    scalars.step = c.step - 1;
    if (kind == nadam) {
        if (!(c.mu_product >= 0 && c.mu_product <= 1)) return TRAINSTEP_BAD_SCALAR;
        scalars.mu_product = c.mu_product;
    } else if (kind == asgd && c.eta < 0) {
        if (c.step > 1) {  // as the step before would have left them
            scalars.step = c.step - 2;
            next_step(kind, options, scalars);
        }
    } else if (kind == asgd) {
        if (!std::isfinite(c.eta) || !(c.mu > 0 && c.mu <= 1)) return TRAINSTEP_BAD_SCALAR;
        scalars.eta = c.eta;
        scalars.mu = c.mu;
    }
    return TRAINSTEP_OK;
}

// Up to one chunk of optimizer_step, which is never shared: such a call makes no plan, and allocates nothing.
constexpr std::size_t kSmall = 16384;

int step(int kind_in, int dtype, std::size_t n, void* w, const void* g, int g_dtype, void* const* states,
         trainstep_scalars* scalars_io, const trainstep_options* options_in) noexcept try {
    if (kind_in < 0 || kind_in >= int(kOptimizerKindCount)) return TRAINSTEP_BAD_KIND;
    if ((dtype != trainstep_float32 && dtype != trainstep_float64) || !is_dtype(g_dtype)) return TRAINSTEP_BAD_DTYPE;
    if (!scalars_io || !options_in) return TRAINSTEP_NULL;
    const auto kind = OptimizerKind(kind_in);
    OptimizerOptions options;
    if (const int error = read_options(kind, *options_in, options)) return error;
    StepScalars scalars;
    if (const int error = read_scalars(kind, *scalars_io, options, scalars)) return error;
    StepArray a;
    a.w = w;
    a.w_dtype = Dtype(dtype);
    a.g = const_cast<void*>(g);  // only read, without zero_grads
    a.g_dtype = Dtype(g_dtype);
    a.n = n;
    a.options = &options;
    Arrays arrays(n);
    if (const int error = arrays.check(w, dtype_size(a.w_dtype))) return error;
    if (const int error = arrays.check(g, dtype_size(a.g_dtype))) return error;
    for (int s = 0; s < kMaxStates; ++s) {
        if (!(used_states(kind, options) >> s & 1)) continue;
        a.states[s] = states ? states[s] : nullptr;
        if (const int error = arrays.check(a.states[s], dtype_size(a.w_dtype))) return error;
    }
    a.terms = next_step(kind, options, scalars, options_in->grad_scale);
    a.terms.clip_value = options_in->clip_value;
    if (n <= kSmall && !has_trust_ratio(kind)) {
        if (n > 0) optimizer_step_range(kind, a, {0, n});
    } else {
        std::optional<OneThread> alone;
        if (options_in->one_thread) alone.emplace();
        std::vector<StepArray> list{a};
        std::vector<SquareSums> sums;
        optimizer_step(kind, list, StepPlan({n}), sums);
    }
    if (kind == nadam) scalars_io->mu_product = scalars.mu_product;
    if (kind == asgd) scalars_io->eta = scalars.eta, scalars_io->mu = scalars.mu;
    return TRAINSTEP_OK;
} catch (...) {
    return TRAINSTEP_NO_RESOURCES;
}

int norm_of(int dtype, std::size_t count, const void* const* arrays, const std::size_t* sizes, double* norm) noexcept try {
    if (!is_dtype(dtype)) return TRAINSTEP_BAD_DTYPE;
    if (!norm || (count > 0 && (!arrays || !sizes))) return TRAINSTEP_NULL;
    std::vector<NormArray> list;
    list.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
        if (const int error = Arrays(sizes[i]).check(arrays[i], dtype_size(Dtype(dtype)))) return error;
        list.push_back({arrays[i], Dtype(dtype)});
    }
    std::vector<double> sums;
    *norm = global_norm(list, StepPlan({sizes, sizes + count}), sums);
    return TRAINSTEP_OK;
} catch (...) {
    return TRAINSTEP_NO_RESOURCES;
}

const char* error_text(int code) noexcept {
    switch (code) {
        case TRAINSTEP_OK:
            return "no error";
        case TRAINSTEP_BAD_KIND:
            return "kind is no trainstep_kind";
        case TRAINSTEP_BAD_DTYPE:
            return "dtype is not float32 or float64, or that of the gradient is no trainstep_dtype";
        case TRAINSTEP_NULL:
            return "a pointer is NULL: w, g, a state that the options ask for, the scalars, the options, or a result";
        case TRAINSTEP_UNALIGNED:
            return "an array does not begin at a multiple of the size of its elements";
        case TRAINSTEP_OVERLAP:
            return "two arrays share memory";
        case TRAINSTEP_BAD_SIZE:
            return "an array of n elements would reach beyond the end of memory";
        case TRAINSTEP_BAD_OPTION:
            return option_error;
        case TRAINSTEP_BAD_STEP:
            return "step is not from 1 to 2^63 - 2";
        case TRAINSTEP_BAD_SCALAR:
            return "a scalar is out of range, expected 0 <= mu_product <= 1, a finite eta, 0 < mu <= 1";
        case TRAINSTEP_NO_RESOURCES:
            return "no memory, or no thread";
        default:
            return "no code of trainstep";
    }
}

constexpr trainstep_api kApi = {sizeof(trainstep_api), TRAINSTEP_ABI_VERSION, options_init, step, norm_of, error_text};

}  // namespace

void bind_capi(py::module_& m) { m.attr("_C_API") = py::capsule(&kApi, "trainstep._core._C_API"); }

}  // namespace trainstep
