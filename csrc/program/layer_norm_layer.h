// LayerNorm: y = (x - mean) / sqrt(variance + eps) * gamma + beta, mean and variance of each row by itself.
#pragma once

#include "ops/elementwise.h"
#include "ops/normalize.h"
#include "program/layer.h"
#include "runtime/arena.h"

namespace trainstep {

template <class T>
class LayerNormLayer final : public Layer<T> {
  public:
    explicit LayerNormLayer(const LayerSpec& spec) : eps_(spec.eps), affine_(spec.affine) {
        this->in = spec.in, this->out = spec.out;
        if (affine_) gradients_ = Arena(2 * padded<T>(this->in) * sizeof(T));
    }

    std::vector<ArraySpec> parameters() const override {
        return affine_ ? std::vector<ArraySpec>{{"gamma", {this->in}}, {"beta", {this->in}}} : std::vector<ArraySpec>{};
    }
    void place(const std::vector<T*>& weights, const std::vector<T*>&) override {
        if (affine_) gamma_ = weights[0], beta_ = weights[1];
    }
    void reserve(std::size_t batch) override {
        statistics_ = Arena(3 * padded<T>(batch) * sizeof(T));
        mean_ = statistics_.template as<T>(), mean_low_ = mean_ + padded<T>(batch), inv_std_ = mean_low_ + padded<T>(batch);
    }

    void forward(Rows<T> y, T*, Rows<const T> x, const BatchRows& rows, Range) const override {
        const auto own = [&](T* statistic) { return rows.training ? statistic + rows.first : nullptr; };
        layer_norm(y.at, own(mean_), own(mean_low_), own(inv_std_), x.at, gamma_, beta_, rows.count, this->in, eps_);
    }
    void backward_input(Rows<T> dx, Rows<const T> dz, Rows<const T> x, const T* source, const Activation& below,
                        const BatchRows& rows, Range) const override {
        layer_norm_backward_input(dx.at, dz.at, x.at, mean_ + rows.first, mean_low_ + rows.first, inv_std_ + rows.first, gamma_,
                                  rows.count, this->in);
        if (below.kind != ActivationKind::identity) activation_backward(below, dx.at, dx.at, source, rows.count, this->in);
    }
    void backward_columns(Rows<const T> dz, Rows<const T> x, std::size_t batch, Range columns) override {
        layer_norm_backward_parameters(gradient(0), gradient(1), dz.at, x.at, mean_, mean_low_, inv_std_, batch, this->in, columns);
    }
    void backward_parameter(std::size_t parameter, Rows<T> g, Rows<const T>, Rows<const T>, bool accumulate, std::size_t, Range,
                            Range columns) const override {
        this->deliver(g.at, gradient(parameter), columns, accumulate);
    }
    double flops() const override { return 20.0 * double(this->in); }  // 0.25 ns an element forward, 0.5 backward

  private:
    T* gradient(std::size_t parameter) const { return gradients_.template as<T>() + parameter * padded<T>(this->in); }

    double eps_;
    bool affine_;
    T *gamma_ = nullptr, *beta_ = nullptr;
    Arena gradients_;   // of gamma and beta
    Arena statistics_;  // of each row of a pass of training
    T *mean_ = nullptr, *mean_low_ = nullptr, *inv_std_ = nullptr;
};

}  // namespace trainstep
