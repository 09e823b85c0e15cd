// Dense: y = activation(x @ weight + bias), weight (in, out), bias (out).
#pragma once

#include <algorithm>

#include "ops/dense.h"
#include "program/layer.h"
#include "runtime/arena.h"

namespace trainstep {

template <class T>
class DenseLayer final : public Layer<T> {
  public:
    explicit DenseLayer(const LayerSpec& spec) : has_bias_(spec.bias) {
        this->in = spec.in, this->out = spec.out, this->activation = spec.activation;
    }

    std::vector<ArraySpec> parameters() const override {
        std::vector<ArraySpec> specs{{"weight", {this->in, this->out}}};
        if (has_bias_) specs.push_back({"bias", {this->out}});
        return specs;
    }

    void place(const std::vector<T*>& weights, const std::vector<T*>&) override {
        w_ = weights[0];
        if (has_bias_) b_ = weights[1];
    }

    void forward(Rows<T> y, T* z, Rows<const T> x, const BatchRows& rows, Range units) const override {
        dense(y, z, x, w_, b_, this->activation, rows.count, this->in, this->out, units,
              {this->precision, units.end - units.begin == this->out ? pieces_.of_forward() : nullptr});
    }
    bool folds() const override { return this->activation.kind == ActivationKind::identity; }
    void fold(const Layer<T>& behind) override {
        const std::size_t apart = padded<T>(this->out);
        if (folded_.bytes() == 0) folded_ = Arena(2 * apart * sizeof(T));
        behind.column_map(folded_.template as<T>(), folded_.template as<T>() + apart, b_);
    }
    void forward_folded(Rows<T> y, Rows<const T> x, const BatchRows& rows) const override {
        const T* const scale = folded_.template as<T>();
        dense<T>(y, nullptr, x, w_, scale + padded<T>(this->out), {}, rows.count, this->in, this->out, {0, this->out},
                 this->precision, scale);
    }
    void backward_input(Rows<T> dx, Rows<const T> dz, Rows<const T>, const T* source, const Activation& below,
                        const BatchRows& rows, Range units) const override {
        dense_backward_input(dx, dz, source, w_, below, rows.count, this->out, units,
                             {this->precision, units.end - units.begin == this->in ? pieces_.of_backward() : nullptr});
    }
    void backward_parameter(std::size_t parameter, Rows<T> g, Rows<const T> dz, Rows<const T> x, bool accumulate, std::size_t batch,
                            Range rows, Range columns) const override {
        parameter == 0 ? dense_backward_weight(g, dz, x, accumulate, batch, rows, columns, this->precision)
                       : dense_backward_bias(g.at, dz, accumulate, batch, columns);
    }
    bool has_units() const override { return !info(this->activation.kind).by_rows; }
    // 0 also where z has to be kept: forward_from_chains writes y alone.
    std::size_t chain() const override { return this->keeps_z() ? 0 : chain_of(this->in, this->out); }
    void forward_chains(T* chains, std::size_t apart, Rows<const T> x, std::size_t rows, Range inputs) const override {
        for (std::size_t first = inputs.begin; first < inputs.end; first += chain())
            dense_chain(chains + first / chain() * apart, x, w_, rows, this->out, {first, std::min(first + chain(), inputs.end)},
                        this->precision);
        // Whoever makes y early goes on to update the parameters, while another still reads the bias.
        if (has_bias_ && inputs.end == this->in) std::copy_n(b_, this->out, chains + last(apart));
    }
    void forward_from_chains(T* y, const T* chains, std::size_t apart, std::size_t rows) const override {
        const T* const b = has_bias_ ? chains + last(apart) : nullptr;
        dense_from_chains(y, chains, apart, b, this->activation, rows, this->in, this->out);
    }
    // A product whose sums are cut into chains packs for itself.
    WeightPieces* pieces() override {
        return sizeof(T) == 4 && this->precision != MatmulPrecision::float32 && chain_of(this->in, this->out) == 0 ? &pieces_
                                                                                                                   : nullptr;
    }
    double flops() const override { return 2.0 * double(this->in) * double(this->out); }

  private:
    std::size_t last(std::size_t apart) const { return (this->chains() - 1) * apart; }

    bool has_bias_;
    T *w_ = nullptr, *b_ = nullptr;
    WeightPieces pieces_;
    Arena folded_;  // what the product's columns are multiplied by, and then what is added
};

}  // namespace trainstep
