#include "program/program.h"

#include <algorithm>
#include <stdexcept>

#include "ops/elementwise.h"
#include "program/dense_layer.h"
#include "program/standardize_layer.h"

namespace trainstep {

template <class T>
std::unique_ptr<Layer<T>> make_layer(const LayerSpec& spec) {
    if (spec.kind == "dense") return std::make_unique<DenseLayer<T>>(spec);
    if (spec.kind == "standardize") return std::make_unique<StandardizeLayer<T>>(spec);
    throw std::invalid_argument("Sequential: no layer is named '" + spec.kind + "'");
}

namespace {
// One thread's speed in small and middle-sized products, for the cost model (bench/bench_dense.py).
template <class T>
constexpr double kFlopsPerNs = 320.0 / sizeof(T);
}  // namespace

template <class T>
Program<T>::Program(const std::vector<LayerSpec>& specs) {
    if (specs.empty()) throw std::invalid_argument("Sequential: a network needs at least one layer");
    std::size_t total = 0, buffer_total = 0;
    for (std::size_t i = 0; i < specs.size(); ++i) {
        if (specs[i].in == 0 || specs[i].out == 0)
            throw std::invalid_argument("Sequential: layer " + std::to_string(i) + " is " + std::to_string(specs[i].in) + " -> " +
                                        std::to_string(specs[i].out) + ", both widths must be at least 1");
        if (i > 0 && specs[i - 1].out != specs[i].in)
            throw std::invalid_argument("Sequential: layer " + std::to_string(i) + " takes " + std::to_string(specs[i].in) +
                                        " features, layer " + std::to_string(i - 1) + " gives " + std::to_string(specs[i - 1].out));
        layers_.push_back(make_layer<T>(specs[i]));
        for (const ArraySpec& p : layers_.back()->parameters()) total += padded<T>(p.size());
        for (const ArraySpec& b : layers_.back()->buffers()) buffer_total += padded<T>(b.size());
    }
    weight_arena_ = Arena(total * sizeof(T));
    gradient_arena_ = Arena(total * sizeof(T));
    buffer_arena_ = Arena(buffer_total * sizeof(T));
    std::size_t at = 0, buffer_at = 0;
    for (std::size_t i = 0; i < layers_.size(); ++i) {
        first_parameter_.push_back(parameters_.size());
        std::vector<T*> weights, gradients, buffers;
        for (const ArraySpec& p : layers_[i]->parameters()) {
            weights.push_back(weight_arena_.template as<T>() + at);
            gradients.push_back(gradient_arena_.template as<T>() + at);
            parameters_.push_back({std::to_string(i) + "." + p.name, p.shape, p.size(), weights.back(), gradients.back()});
            at += padded<T>(p.size());
        }
        for (const ArraySpec& b : layers_[i]->buffers()) {
            buffers.push_back(buffer_arena_.template as<T>() + buffer_at);
            buffers_.push_back({std::to_string(i) + "." + b.name, b.shape, buffers.back()});
            buffer_at += padded<T>(b.size());
        }
        layers_[i]->place(weights, gradients, buffers);
        if (parameters_.empty()) ++untrained_;
        ns_per_row_ += 3 * layers_[i]->flops() / kFlopsPerNs<T>;  // forward, and twice as much backward
    }
    first_parameter_.push_back(parameters_.size());
    outputs_.resize(layers_.size());
    gradients_.resize(layers_.size());
}

template <class T>
void Program<T>::reserve(std::size_t batch) {
    if (batch <= reserved_) return;
    std::size_t total = padded<T>(batch * in());
    for (const auto& layer : layers_) total += 2 * padded<T>(batch * layer->out);
    reserved_ = batch_ = 0;  // what the last forward kept goes with the old workspace
    workspace_ = Arena(total * sizeof(T));
    T* at = workspace_.template as<T>();
    const auto take = [&at](std::size_t n) {
        T* here = at;
        at += padded<T>(n);
        return here;
    };
    input_ = take(batch * in());
    for (std::size_t i = 0; i < layers_.size(); ++i) {
        outputs_[i] = take(batch * layers_[i]->out);
        gradients_[i] = take(batch * layers_[i]->out);
    }
    reserved_ = batch;
}

template <class T>
bool Program<T>::owns(const void* first, const void* last) const {
    const auto meets = [=](const Arena& arena) {
        const char* begin = arena.template as<char>();
        return first < begin + arena.bytes() && last > begin;
    };
    return meets(weight_arena_) || meets(gradient_arena_) || meets(buffer_arena_);
}

template <class T>
void Program<T>::begin(const T* x, std::size_t batch) {
    reserve(batch);
    x_ = x, batch_ = batch;
}

// Columns where every thread gets some, and where the product above can take its dx by columns; the last layer's rows go to the
// loss.
template <class T>
Split Program<T>::split(std::size_t layer, Team team) const {
    const bool by_columns = team.parts > 1 && layer + 1 < layers_.size() && layers_[layer]->has_columns() &&
                            layers_[layer + 1]->has_columns() && layers_[layer]->out >= std::size_t(team.parts) * kShareGrain;
    return by_columns ? Split::columns : Split::rows;
}

template <class T>
Block Program<T>::share(std::size_t layer, Team team) const {
    const std::size_t out = layers_[layer]->out;
    if (split(layer, team) == Split::columns) return {{0, batch_}, share_of(out, kShareGrain, team)};
    return {share_of(batch_, 1, team), {0, out}};
}

template <class T>
void Program<T>::hand_over(std::size_t from, std::size_t to, Team team) const {
    if (split(from, team) == Split::columns || split(to, team) == Split::columns) team.barrier();
}

template <class T>
void Program<T>::forward(Team team) {
    for (std::size_t i = 0; i < layers_.size(); ++i) {
        if (i > 0) hand_over(i - 1, i, team);
        layers_[i]->forward(outputs_[i], i == 0 ? x_ : outputs_[i - 1], share(i, team));
    }
}

template <class T>
void Program<T>::predict(T* y, const T* x, std::size_t rows) {
    constexpr std::size_t most = 512;  // rows: enough for the products, few enough for the cache
    const std::size_t block = std::min(rows, most);
    std::size_t widest = 0;
    for (const auto& layer : layers_) widest = std::max(widest, layer->out);
    const std::size_t size = padded<T>(block * widest);
    if (predict_workspace_.bytes() < 2 * size * sizeof(T)) predict_workspace_ = Arena(2 * size * sizeof(T));
    T* const buffers[2] = {predict_workspace_.template as<T>(), predict_workspace_.template as<T>() + size};
    for (std::size_t r = 0; r < rows; r += block) {
        const std::size_t batch = std::min(block, rows - r);
        const T* from = x + r * in();
        for (std::size_t i = 0; i < layers_.size(); ++i) {
            T* to = i + 1 == layers_.size() ? y + r * out() : buffers[i % 2];
            layers_[i]->forward(to, from, whole(batch, layers_[i]->out));
            from = to;
        }
    }
}

template <class T>
void Program<T>::backward_inputs(T* dx, Team team) {
    const std::size_t last = layers_.size() - 1;
    if (const Activation f = layers_[last]->activation; f != Activation::identity) {
        const Range rows = share(last, team).rows;
        const std::size_t at = rows.begin * out(), n = (rows.end - rows.begin) * out();
        activation_backward(f, gradients_[last] + at, gradients_[last] + at, outputs_[last] + at, n);
    }
    for (std::size_t i = last; i > (dx ? 0 : untrained_); --i) {
        hand_over(i, i - 1, team);
        layers_[i]->backward_input(gradients_[i - 1], gradients_[i], outputs_[i - 1], layers_[i - 1]->activation,
                                   share(i - 1, team));
    }
    if (dx) layers_[0]->backward_input(dx, gradients_[0], x_, Activation::identity, whole(batch_, in()));
}

template <class T>
void Program<T>::settle(Team team) const {
    for (std::size_t i = untrained_; i < layers_.size(); ++i) {
        const bool own =
            split(i, team) == Split::columns ? i == untrained_ : i > untrained_ && split(i - 1, team) == Split::columns;
        if (!own) return team.barrier();
    }
}

template <class T>
void Program<T>::backward_parameters(std::size_t layer, bool accumulate, Team team) {
    const T* x = layer == 0 ? x_ : outputs_[layer - 1];
    layers_[layer]->backward_parameters(gradients_[layer], x, accumulate, batch_, split(layer, team), team);
}

template <class T>
Block Program<T>::owned_block(std::size_t layer, const Parameter<T>& p, Team team) const {
    if (p.shape.size() == 1) return {{0, 1}, share_of(p.size, kShareGrain, team)};
    return owned(split(layer, team), p.shape[0], p.size / p.shape[0], team);
}

template class Program<float>;
template class Program<double>;

}  // namespace trainstep
