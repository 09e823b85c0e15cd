// Dropout: in training y = x / (1 - rate) where an element is kept, and 0 elsewhere; otherwise y = x.
#pragma once

#include <algorithm>

#include "ops/dropout.h"
#include "ops/elementwise.h"
#include "program/layer.h"

namespace trainstep {

template <class T>
class DropoutLayer final : public Layer<T> {
  public:
    explicit DropoutLayer(const LayerSpec& spec) : rate_(spec.rate) { this->in = spec.in, this->out = spec.out; }

    std::vector<ArraySpec> parameters() const override { return {}; }
    void place(const std::vector<T*>&, const std::vector<T*>&) override {}

    bool draws() const override { return true; }
    void draw(std::uint64_t seed, std::uint32_t pass) override { mask_ = dropout_mask(rate_, seed, pass); }
    bool only_trains() const override { return true; }

    void forward(Rows<T> y, T*, Rows<const T> x, const BatchRows& rows, Range) const override {
        rows.training ? drop(y.at, x.at, rows) : (void)std::copy_n(x.at, rows.count * this->in, y.at);
    }
    void backward_input(Rows<T> dx, Rows<const T> dz, Rows<const T>, const T* source, const Activation& below,
                        const BatchRows& rows, Range) const override {
        drop(dx.at, dz.at, rows);  // the same mask, drawn again
        if (below.kind != ActivationKind::identity) activation_backward(below, dx.at, dx.at, source, rows.count, this->in);
    }
    void backward_parameter(std::size_t, Rows<T>, Rows<const T>, Rows<const T>, bool, std::size_t, Range, Range) const override {}
    bool keeps_x() const override { return false; }
    double flops() const override { return 16.0 * double(this->in); }  // Philox, in products of 16 to a ns

  private:
    void drop(T* y, const T* x, const BatchRows& rows) const {
        dropout<T>(y, nullptr, x, rows.count * this->in, mask_, T(dropout_scale(rate_)), rows.first * this->in);
    }

    double rate_;
    DropoutMask mask_{};
};

}  // namespace trainstep
