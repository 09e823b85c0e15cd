// Functions of one element at a time: vmath, activations, standardize.
#include "kernels/fill.h"
#include "kernels/loops.h"
#include "kernels/standardize.h"

namespace trainstep::TRAINSTEP_ISA {

namespace {

template <class T>
void fill(Kernels<T>& k) {
#define TRAINSTEP_VMATH(name)                                                                            \
    k.vmath[int(VmathFunction::name)] = [](T* y, const T* x, std::size_t n) {                            \
        map<T>(y, x, n, [](Vec<T> v) __attribute__((always_inline)) { return TRAINSTEP_ISA::name(v); }); \
    };
    TRAINSTEP_VMATH_FUNCTIONS(TRAINSTEP_VMATH)
#undef TRAINSTEP_VMATH
#define TRAINSTEP_ACTIVATION(name)                                                                                      \
    k.activation[int(Activation::name)] = [](T* y, const T* x, std::size_t n) {                                         \
        map<T>(y, x, n, [](Vec<T> v) __attribute__((always_inline)) { return activations::name::forward<T>(v); });      \
    };                                                                                                                  \
    k.activation_backward[int(Activation::name)] = [](T* dx, const T* dy, const T* y, std::size_t n) {                  \
        zip<T>(dx, dy, y, n,                                                                                            \
               [](Vec<T> d, Vec<T> v) __attribute__((always_inline)) { return activations::name::backward<T>(d, v); }); \
    };
    TRAINSTEP_ACTIVATIONS(TRAINSTEP_ACTIVATION)
#undef TRAINSTEP_ACTIVATION
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
