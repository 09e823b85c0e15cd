// Functions of one element at a time: vmath, activations, standardize.
#include "kernels/fill.h"
#include "kernels/loops.h"
#include "kernels/standardize.h"

namespace trainstep::TRAINSTEP_ISA {

namespace {

template <class T, class Formula>
void fill_activation(Kernels<T>& k, int kind) {
    if constexpr (requires { Formula::template forward_row<T>; }) {
        k.activation[kind] = Formula::template forward_row<T>;
        k.activation_backward[kind] = Formula::template backward_row<T>;
    } else {
        k.activation[kind] = [](T* y, const T* x, std::size_t n, T parameter) {
            map<T>(y, x, n, [=](Vec<T> v) __attribute__((always_inline)) { return Formula::template forward<T>(v, parameter); });
        };
        k.activation_backward[kind] = [](T* dx, const T* dy, const T* source, std::size_t n, T parameter) {
            zip<T>(dx, dy, source, n, [=](Vec<T> d, Vec<T> v) __attribute__((always_inline)) {
                return Formula::template backward<T>(d, v, parameter);
            });
        };
    }
}

template <class T>
void fill(Kernels<T>& k) {
#define TRAINSTEP_VMATH(name)                                                                            \
    k.vmath[int(VmathFunction::name)] = [](T* y, const T* x, std::size_t n) {                            \
        map<T>(y, x, n, [](Vec<T> v) __attribute__((always_inline)) { return TRAINSTEP_ISA::name(v); }); \
    };
    TRAINSTEP_VMATH_FUNCTIONS(TRAINSTEP_VMATH)
#undef TRAINSTEP_VMATH
#define TRAINSTEP_ACTIVATION(name, ...) fill_activation<T, activations::name>(k, int(ActivationKind::name));
    TRAINSTEP_ACTIVATIONS(TRAINSTEP_ACTIVATION)
#undef TRAINSTEP_ACTIVATION
    k.sum = [](T* y, const T* a, const T* b, std::size_t n) {
        zip<T>(y, a, b, n, [](Vec<T> u, Vec<T> v) __attribute__((always_inline)) { return u + v; });
    };
    k.standardize = [](T* y, const T* x, const T* mean, const T* scale, std::size_t rows, std::size_t columns) {
        TRAINSTEP_ISA::standardize(y, x, mean, scale, rows, columns);
    };
    k.standardize_backward = [](T* dx, const T* dy, const T* scale, std::size_t rows, std::size_t columns) {
        TRAINSTEP_ISA::standardize_backward(dx, dy, scale, rows, columns);
    };
}

}  // namespace

void fill_elementwise(KernelTable& table) {
    fill(table.f32);
    fill(table.f64);
}

}  // namespace trainstep::TRAINSTEP_ISA
