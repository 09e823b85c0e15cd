#include "program/program.h"

#include <algorithm>
#include <stdexcept>

#include "ops/elementwise.h"
#include "program/dense_layer.h"

namespace trainstep {

template <class T>
std::unique_ptr<Layer<T>> make_layer(const LayerSpec& spec) {
    if (spec.kind == "dense") return std::make_unique<DenseLayer<T>>(spec);
    throw std::invalid_argument("layers: no layer is named '" + spec.kind + "'");
}

template <class T>
Program<T>::Program(const std::vector<LayerSpec>& specs) {
    if (specs.empty()) throw std::invalid_argument("layers: a network needs at least one layer");
    std::size_t total = 0;
    for (std::size_t i = 0; i < specs.size(); ++i) {
        if (specs[i].in == 0 || specs[i].out == 0)
            throw std::invalid_argument("layers: layer " + std::to_string(i) + " is " + std::to_string(specs[i].in) + " -> " +
                                        std::to_string(specs[i].out) + ", both widths must be at least 1");
        if (i > 0 && specs[i - 1].out != specs[i].in)
            throw std::invalid_argument("layers: layer " + std::to_string(i) + " takes " + std::to_string(specs[i].in) +
                                        " features, layer " + std::to_string(i - 1) + " gives " + std::to_string(specs[i - 1].out));
        layers_.push_back(make_layer<T>(specs[i]));
        for (const ParameterSpec& p : layers_.back()->parameters()) total += padded<T>(p.size());
    }
    weight_arena_ = Arena(total * sizeof(T));
    gradient_arena_ = Arena(total * sizeof(T));
    std::size_t at = 0;
    for (std::size_t i = 0; i < layers_.size(); ++i) {
        std::vector<T*> weights, gradients;
        for (const ParameterSpec& p : layers_[i]->parameters()) {
            weights.push_back(weight_arena_.template as<T>() + at);
            gradients.push_back(gradient_arena_.template as<T>() + at);
            parameters_.push_back({std::to_string(i) + "." + p.name, p.shape, p.size(), weights.back(), gradients.back()});
            at += padded<T>(p.size());
        }
        layers_[i]->place(weights, gradients);
    }
    outputs_.resize(layers_.size());
}

template <class T>
void Program<T>::reserve(std::size_t batch) {
    if (batch <= reserved_) return;
    std::size_t widest = 0, total = padded<T>(batch * in());
    for (const auto& layer : layers_) {
        widest = std::max(widest, layer->out);
        total += padded<T>(batch * layer->out);
    }
    total += 2 * padded<T>(batch * widest);
    reserved_ = batch_ = 0;  // what the last forward kept goes with the old workspace
    workspace_ = Arena(total * sizeof(T));
    T* at = workspace_.template as<T>();
    const auto take = [&at](std::size_t n) {
        T* here = at;
        at += padded<T>(n);
        return here;
    };
    input_ = take(batch * in());
    for (std::size_t i = 0; i < layers_.size(); ++i) outputs_[i] = take(batch * layers_[i]->out);
    for (T*& gradient : gradients_) gradient = take(batch * widest);
    reserved_ = batch;
}

template <class T>
const T* Program<T>::forward(const T* x, std::size_t batch) {
    reserve(batch);
    x_ = x, batch_ = batch;
    for (std::size_t i = 0; i < layers_.size(); ++i) layers_[i]->forward(outputs_[i], i == 0 ? x : outputs_[i - 1], batch);
    return outputs_.back();
}

template <class T>
void Program<T>::predict(T* y, const T* x, std::size_t rows) {
    constexpr std::size_t block = 512;  // rows: enough for the products, few enough for the cache
    reserve(std::min(rows, block));
    batch_ = 0;  // the workspace no longer holds what backward needs
    for (std::size_t r = 0; r < rows; r += block) {
        const std::size_t batch = std::min(block, rows - r);
        const T* from = x + r * in();
        for (std::size_t i = 0; i < layers_.size(); ++i) {
            T* to = i + 1 == layers_.size() ? y + r * out() : outputs_[i];
            layers_[i]->forward(to, from, batch);
            from = to;
        }
    }
}

template <class T>
void Program<T>::backward(T* dx, T* dy, bool accumulate) {
    const std::size_t last = layers_.size() - 1;
    if (layers_[last]->activation != Activation::identity)
        activation_backward(layers_[last]->activation, dy, dy, outputs_[last], batch_ * out());
    T* dz = dy;
    for (std::size_t i = layers_.size(); i-- > 0;) {
        const T* x = i == 0 ? x_ : outputs_[i - 1];
        T* below = i == 0 ? dx : dz == gradients_[0] ? gradients_[1] : gradients_[0];
        layers_[i]->backward(below, dz, x, i == 0 ? Activation::identity : layers_[i - 1]->activation, accumulate, batch_);
        dz = below;
    }
}

template class Program<float>;
template class Program<double>;

}  // namespace trainstep
