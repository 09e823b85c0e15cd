#include "program/program.h"

#include <algorithm>
#include <stdexcept>

#include "ops/elementwise.h"
#include "program/activation_layer.h"
#include "program/dense_layer.h"
#include "program/dropout_layer.h"
#include "program/standardize_layer.h"
#include "runtime/philox.h"

namespace trainstep {

template <class T>
std::unique_ptr<Layer<T>> make_layer(const LayerSpec& spec) {
    if (spec.kind == "dense") return std::make_unique<DenseLayer<T>>(spec);
    if (spec.kind == "standardize") return std::make_unique<StandardizeLayer<T>>(spec);
    if (spec.kind == "dropout") return std::make_unique<DropoutLayer<T>>(spec);
    if (spec.kind == "activation") return std::make_unique<ActivationLayer<T>>(spec);
    throw std::invalid_argument("Sequential: no layer is named '" + spec.kind + "'");
}

namespace {
// One thread's speed in small and middle-sized products, for the cost model (bench/bench_dense.py).
template <class T>
constexpr double kFlopsPerNs = 320.0 / sizeof(T);

constexpr std::size_t kPredictRows = 512;  // a block of predict: enough for the products, few enough for the cache
constexpr double kSharedProducts = 1e6;    // ns of such a block on one thread, from which on its products are shared (reasoned)

template <class T>
Rows<T> from(Rows<T> rows, std::size_t first) {
    return {rows.at + first * rows.stride, rows.stride};
}
template <class T>
Rows<const T> constant(Rows<T> rows) {
    return {rows.at, rows.stride};
}
bool is_identity(const Activation& f) { return f.kind == ActivationKind::identity; }
}  // namespace

template <class T>
Program<T>::Program(const std::vector<LayerSpec>& specs, std::uint64_t seed) {
    if (specs.empty()) throw std::invalid_argument("Sequential: a network needs at least one layer");
    std::size_t total = 0, buffer_total = 0;
    for (std::size_t i = 0; i < specs.size(); ++i) {
        if (specs[i].in == 0 || specs[i].out == 0)
            throw std::invalid_argument("Sequential: layer " + std::to_string(i) + " is " + std::to_string(specs[i].in) + " -> " +
                                        std::to_string(specs[i].out) + ", both widths must be at least 1");
        if (i > 0 && specs[i - 1].out != specs[i].in)
            throw std::invalid_argument("Sequential: layer " + std::to_string(i) + " takes " + std::to_string(specs[i].in) +
                                        " features, layer " + std::to_string(i - 1) + " gives " + std::to_string(specs[i - 1].out));
        // A dense layer takes the activation behind it along, on its way to memory.
        if (i > 0 && specs[i].kind == "activation" && specs[i - 1].kind == "dense" && is_identity(specs[i - 1].activation)) {
            layers_.back()->activation = specs[i].activation;
            continue;
        }
        layers_.push_back(make_layer<T>(specs[i]));
        spec_of_.push_back(i);
        for (const ArraySpec& p : layers_.back()->parameters()) total += padded<T>(p.size());
        for (const ArraySpec& b : layers_.back()->buffers()) buffer_total += padded<T>(b.size());
    }
    weight_arena_ = Arena(total * sizeof(T));
    buffer_arena_ = Arena(buffer_total * sizeof(T));
    std::size_t at = 0, buffer_at = 0;
    for (std::size_t i = 0; i < layers_.size(); ++i) {
        first_parameter_.push_back(parameters_.size());
        const std::string prefix = std::to_string(spec_of_[i]) + ".";
        std::vector<T*> weights, buffers;
        for (const ArraySpec& p : layers_[i]->parameters()) {
            weights.push_back(weight_arena_.template as<T>() + at);
            parameters_.push_back({prefix + p.name, p.shape, p.size(), weights.back(), nullptr, false});
            at += padded<T>(p.size());
        }
        for (const ArraySpec& b : layers_[i]->buffers()) {
            buffers.push_back(buffer_arena_.template as<T>() + buffer_at);
            buffers_.push_back({prefix + b.name, b.shape, buffers.back()});
            buffer_at += padded<T>(b.size());
        }
        layers_[i]->place(weights, buffers);
        if (layers_[i]->draws()) {
            const PhiloxCounter words = PhiloxStream{seed, Purpose::dropout, 0}.at(i);
            drawing_.push_back({layers_[i].get(), std::uint64_t{words[1]} << 32 | words[0]});
        }
        ns_per_row_ += ns_per_row(i);
    }
    first_parameter_.push_back(parameters_.size());
    outputs_.resize(layers_.size());
    gradients_.resize(layers_.size());
    z_.resize(layers_.size());
    freeze(std::vector<bool>(parameters_.size()));
}

template <class T>
void Program<T>::freeze(const std::vector<bool>& frozen) {
    first_trained_ = layers_.size();
    for (std::size_t layer = layers_.size(); layer-- > 0;)
        for (std::size_t i = first_parameter(layer); i < first_parameter(layer + 1); ++i) {
            Parameter<T>& p = parameters_[i];
            p.frozen = frozen[i];
            if (!p.frozen)
                first_trained_ = layer;
            else if (p.gradient)
                std::fill_n(p.gradient, p.size, T(0));
        }
}

template <class T>
double Program<T>::ns_per_row(std::size_t layer) const {
    return 3 * layers_[layer]->flops() / kFlopsPerNs<T>;  // forward, and twice as much backward
}

template <class T>
void Program<T>::keep_gradients() {
    if (keeps_gradients()) return;
    gradient_arena_ = Arena(weight_arena_.bytes());
    for (Parameter<T>& p : parameters_) p.gradient = gradient_arena_.template as<T>() + (p.weight - weight_arena_.template as<T>());
    gradients_begin_ = gradient_arena_.as<char>();
}

// Elements from one row of a layer's output to the next. Rows of a multiple of 256 bytes would fall on few sets of the caches: of a
// block of columns only a part would stay in L1. (Two lines more, so that lines that are fetched in pairs belong to one thread.)
template <class T>
std::size_t Program<T>::stride(std::size_t layer) const {
    constexpr std::size_t few_sets = 256 / sizeof(T), gap = kPair / sizeof(T);
    const std::size_t width = layers_[layer]->out;
    const bool may_lie_apart = layer + 1 < layers_.size() && layers_[layer]->has_units() && layers_[layer + 1]->has_units();
    return may_lie_apart && width % few_sets == 0 ? width + gap : width;
}

template <class T>
void Program<T>::reserve(std::size_t batch) {
    if (batch <= reserved_) return;
    std::size_t total = padded<T>(batch * in());
    for (std::size_t i = 0; i < layers_.size(); ++i) total += (layers_[i]->keeps_z() ? 3 : 2) * padded<T>(batch * stride(i));
    total += chains() * (chain_size(batch) + 3 * kApart<T>);
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
        const std::size_t gaps = i == 0 ? chains() * kApart<T> : 0;
        outputs_[i] = {take(batch * stride(i) + gaps), stride(i)};
        gradients_[i] = {take(batch * stride(i) + gaps), stride(i)};
        z_[i] = layers_[i]->keeps_z() ? take(batch * stride(i) + gaps) : nullptr;
    }
    chains_ = at;
    reserved_ = batch;
}

template <class T>
bool Program<T>::owns(const void* first, const void* last) const {
    const auto meets = [=](const char* begin, std::size_t bytes) { return begin && first < begin + bytes && last > begin; };
    return meets(weight_arena_.as<char>(), weight_arena_.bytes()) || meets(gradients_begin_, weight_arena_.bytes()) ||
           meets(buffer_arena_.as<char>(), buffer_arena_.bytes());
}

template <class T>
void Program<T>::begin(const T* x, std::size_t batch, bool training) {
    reserve(batch);
    x_ = x, batch_ = batch, training_ = training;
    if (!training) return;
    for (const Drawing& d : drawing_) d.layer->draw(d.seed, passes_);
    ++passes_;
}

template <class T>
void Program<T>::forward(Range rows) {
    for (std::size_t i = 0; i < layers_.size(); ++i)
        layers_[i]->forward(from(outputs_[i], rows.begin), z_[i] ? z_[i] + rows.begin * outputs_[i].stride : nullptr,
                            from(input_of(i), rows.begin), of_pass(rows), {0, layers_[i]->out});
}

template <class T>
void Program<T>::predict(T* y, const T* x, std::size_t rows) {
    // Of a small net each thread takes blocks through all layers; of a large one every product is shared, and its weights packed
    // once.
    const double ns_per_row = ns_per_row_ / 3;
    const int threads = kPredictRows * ns_per_row < kSharedProducts ? threads_for(double(rows) * ns_per_row) : 1;
    const std::size_t share = (rows + std::size_t(threads) - 1) / std::size_t(threads), block = std::min(share, kPredictRows);
    std::size_t widest = 0;
    for (std::size_t i = 0; i < layers_.size(); ++i) widest = std::max(widest, stride(i));
    const std::size_t size = padded<T>(block * widest);
    if (predict_workspace_.bytes() < 2 * size * sizeof(T) * std::size_t(threads))
        predict_workspace_ = Arena(2 * size * sizeof(T) * std::size_t(threads));
    run_team(threads, [&](Team team) {
        T* const own = predict_workspace_.template as<T>() + 2 * size * std::size_t(team.part);
        T* const buffers[2] = {own, own + size};
        const Range mine = share_of(rows, 1, team);
        for (std::size_t r = mine.begin; r < mine.end; r += block) {
            const std::size_t batch = std::min(block, mine.end - r);
            Rows<const T> from{x + r * in(), in()};
            for (std::size_t i = 0, next = 0; i < layers_.size(); ++i) {
                const bool is_last = i + 1 == layers_.size();
                if (layers_[i]->only_trains() && !is_last) continue;
                const Rows<T> to{is_last ? y + r * out() : buffers[next], stride(i)};
                layers_[i]->forward(to, nullptr, from, {r, batch, false}, {0, layers_[i]->out});
                from = constant(to), next = 1 - next;
            }
        }
    });
}

template <class T>
void Program<T>::backward_inputs(T* dx, Range rows) {
    const std::size_t n = rows.end - rows.begin;
    backward_output(from(gradients_.back(), rows.begin).at, from(source_of(layers_.size() - 1), rows.begin).at, n);
    for (std::size_t i = layers_.size(); i-- > (dx ? 1 : first_trained_ + 1);) {
        const Layer<T>&layer = *layers_[i], &below = *layers_[i - 1];
        layer.backward_input(from(gradients_[i - 1], rows.begin), constant(from(gradients_[i], rows.begin)),
                             from(source_of(i - 1), rows.begin).at, below.activation, of_pass(rows), {0, below.out});
    }
    if (dx)
        layers_[0]->backward_input(from(Rows<T>{dx, in()}, rows.begin), constant(from(gradients_[0], rows.begin)),
                                   from(input_of(0), rows.begin).at, Activation{}, of_pass(rows), {0, in()});
}

template <class T>
void Program<T>::backward_parameter(std::size_t layer, std::size_t i, Rows<T> g, const Factors& factors, bool accumulate,
                                    Range rows, Range columns) {
    layers_[layer]->backward_parameter(i - first_parameter_[layer], g, factors.dz, factors.x, accumulate, batch_, rows, columns);
}

template <class T>
ParameterShare Program<T>::share_of_parameters(std::size_t layer, Team team) const {
    constexpr std::size_t line = 64 / sizeof(T);
    return {share_of(layers_[layer]->in, 1, team), {0, layers_[layer]->out}, share_of(layers_[layer]->out, line, team)};
}

template <class T>
void Program<T>::forward_units(Range units) {
    const Rows<T> hidden = units_in(outputs_[0], units);
    layers_[0]->forward(hidden, z_[0] ? units_in(Rows<T>{z_[0], hidden.stride}, units).at : nullptr, input_of(0),
                        of_pass({0, batch_}), units);
    layers_[1]->forward_chains(chains_, chain_size(batch_), constant(hidden), batch_, units);
}

template <class T>
void Program<T>::output_from_chains(T* y) const {
    layers_[1]->forward_from_chains(y, chains_, chain_size(batch_), batch_);
}

template <class T>
void Program<T>::backward_output(T* dy, const T* source, std::size_t rows) const {
    const Layer<T>& last = *layers_.back();
    if (!is_identity(last.activation)) activation_backward(last.activation, dy, dy, source, rows, last.out);
}

template <class T>
void Program<T>::backward_units(const T* dz, Range units) {
    layers_[1]->backward_input(units_in(gradients_[0], units), Rows<const T>{dz, out()}, units_in(source_of(0), units).at,
                               layers_[0]->activation, of_pass({0, batch_}), units);
}

template class Program<float>;
template class Program<double>;

}  // namespace trainstep
