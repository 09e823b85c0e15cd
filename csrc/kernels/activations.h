// Activations: the one list, and one struct per formula with its backward beside it.
//
// forward(x) -> y. backward(dy, y) -> dx, with the derivative taken from the output y, so that a layer keeps y alone.
#pragma once

#include "kernels/lists.h"

#define TRAINSTEP_ACTIVATIONS(X) X(identity) X(relu) X(sigmoid) X(tanh)

namespace trainstep {
TRAINSTEP_FAMILY(Activation, TRAINSTEP_ACTIVATIONS)
}

#ifdef TRAINSTEP_ISA
#include "kernels/vmath.h"

namespace trainstep::TRAINSTEP_ISA::activations {

struct identity {  // y = x;  dx = dy
    template <class T>
    static TRAINSTEP_INLINE Vec<T> forward(Vec<T> x) {
        return x;
    }
    template <class T>
    static TRAINSTEP_INLINE Vec<T> backward(Vec<T> dy, Vec<T>) {
        return dy;
    }
};

struct relu {  // y = max(x, 0), NaN for NaN;  dx = dy where y > 0, else 0; a NaN in y goes through
    template <class T>
    static TRAINSTEP_INLINE Vec<T> forward(Vec<T> x) {
        return max(zero<T>(), x);
    }
    template <class T>
    static TRAINSTEP_INLINE Vec<T> backward(Vec<T> dy, Vec<T> y) {
        return y <= zero<T>() ? zero<T>() : dy;
    }
};

struct sigmoid {  // y = 1 / (1 + exp(-x));  dx = dy * y * (1 - y)
    template <class T>
    static TRAINSTEP_INLINE Vec<T> forward(Vec<T> x) {
        return TRAINSTEP_ISA::sigmoid(x);
    }
    template <class T>
    static TRAINSTEP_INLINE Vec<T> backward(Vec<T> dy, Vec<T> y) {
        return dy * (y * (T(1) - y));
    }
};

struct tanh {  // y = tanh(x);  dx = dy * (1 - y^2)
    template <class T>
    static TRAINSTEP_INLINE Vec<T> forward(Vec<T> x) {
        return TRAINSTEP_ISA::tanh(x);
    }
    template <class T>
    static TRAINSTEP_INLINE Vec<T> backward(Vec<T> dy, Vec<T> y) {
        return dy * ((T(1) - y) * (T(1) + y));  // 1 - y*y would cancel where y is near 1
    }
};

}  // namespace trainstep::TRAINSTEP_ISA::activations
#endif
