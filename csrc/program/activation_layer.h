// Activation: y = f(x), where no layer before it can take f along. Forward keeps f'(x), most of which it has just calculated, where
// a byte would not do (see Program::forward_to).
#pragma once

#include "ops/elementwise.h"
#include "program/layer.h"

namespace trainstep {

template <class T>
class ActivationLayer final : public Layer<T> {
  public:
    explicit ActivationLayer(const LayerSpec& spec) {
        this->in = spec.in, this->out = spec.out, this->activation = spec.activation;
        this->activation.of_slope = spec.activation.kind != ActivationKind::identity && info(spec.activation.kind).has_slope();
    }

    std::vector<ArraySpec> parameters() const override { return {}; }
    void place(const std::vector<T*>&, const std::vector<T*>&) override {}

    void forward(Rows<T> y, T* slope, Rows<const T> x, const BatchRows& rows, Range) const override {
        if (slope && rows.training)
            activation_with_slope(this->activation, y.at, slope, x.at, rows.count * this->in);
        else
            trainstep::activation(this->activation, y.at, x.at, rows.count, this->in);
    }
    void backward_input(Rows<T> dx, Rows<const T> dz, Rows<const T>, const T* source, const Activation& below,
                        const BatchRows& rows, Range) const override {
        if (below.kind == ActivationKind::identity)
            copy(dx.at, dz.at, rows.count * this->in);
        else
            activation_backward(below, dx.at, dz.at, source, rows.count, this->in);
    }
    void backward_parameter(std::size_t, Rows<T>, Rows<const T>, Rows<const T>, bool, std::size_t, Range, Range) const override {}
    bool is_activation() const override { return true; }
    double flops() const override { return 16.0 * double(this->in); }  // of a function such as tanh (reasoned)
};

}  // namespace trainstep
