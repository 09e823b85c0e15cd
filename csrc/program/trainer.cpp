#include "program/trainer.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <mutex>
#include <stdexcept>
#include <string>

#include "ops/losses.h"
#include "ops/penalty.h"

namespace trainstep {

namespace {
// In one thread's ns by the cost model. A step below kSmallStep runs alone. Up to kLargeStep, or kLargeStepByUnits where threads
// can share the units of the hidden layer, a step is one parallel region, on one thread or on all as trials show: what two cores
// hand each other (new parameters, the other rows' activations) can cost what the second one saves. Above and "on one thread" the
// products that are large enough are shared one by one. Where kLargeStep lies best has not been searched: each thread of a region
// packs all of a layer's weights for its rows. By units 784-128-10 at batch 64 (523e3) takes 144 us, by products 156, and 175 and
// 290 where the cores lie far apart; 784-256-10 (1,050e3) 305 and 290, 390 and 550.
constexpr double kSmallStep = 4e3;
constexpr double kTeamGuess = 80e3;  // where a team is what to begin with
constexpr double kLargeStep = 400e3, kLargeStepByUnits = 1500e3;
// One thread's time for the update of an element (Adam, in cache).
constexpr double kUpdateNs = 0.35;

// A tile of a gradient that never reaches memory, at most: in L2 beside the packed panels of its product (reasoned).
constexpr std::size_t kTileRows = 192, kTileRowBytes = 2048;
// Such tiles pay where the parameters do not fit L2 and the batch is neither so small that their rows should be longer nor so large
// that packing the product's operands for each of them costs more than the bytes. 2 threads on a Zen 4, time without over time
// with: 784-512-512-10 at batch 128 1.05, 2048-2048-10 at 32 1.10, 1024-1024-10 at 64 1.13; 784-2048-2048-10 at 256 0.98,
// 4096-4096-4096-10 at 1024 0.98, 1024-1024-1024 at 1 0.96. Threads that share hidden units also write less beside each other's
// columns: 256-128-10 at 64 1.02, 512-128-10 1.12, 784-64-10 1.10, 256-256-10 1.08, 784-128-10 1.00 and with cores far apart 1.13.
constexpr std::size_t kFusedBytes = std::size_t{1} << 20, kFusedBytesByUnits = kFusedBytes / 8;
constexpr std::size_t kLeastFusedBatch = 16, kMostFusedBatch = 128;

template <class T>
constexpr InputDtype dtype_of = sizeof(T) == 4 ? InputDtype::float32_ : InputDtype::float64_;
}  // namespace

template <class T>
Trainer<T>::Trainer(std::shared_ptr<Program<T>> program, LossSetting<T> loss, std::shared_ptr<Optimizer> optimizer,
                    std::vector<std::size_t> places, FuseUpdate fuse, const Regularization& rules)
    : program_(std::move(program)),
      loss_(std::move(loss)),
      fuse_(fuse),
      optimizer_(std::move(optimizer)),
      places_(std::move(places)),
      rules_(rules) {
    if (!loss_.class_weight.empty()) loss_.options.class_weight = loss_.class_weight.data();
}

// Begins a pass over the batch and says how its loss is taken.
template <class T>
LossRows<T> Trainer<T>::begin(const Batch& batch, std::int32_t* correct, bool training) {
    const std::size_t columns = program_->out();
    if (row_loss_.bytes() < batch.rows * sizeof(T)) row_loss_ = Arena(batch.rows * sizeof(T));
    program_->use_precision(precision);
    program_->begin(batch.x, batch.rows, training);
    return {row_loss_.template as<T>(),
            nullptr,
            correct,
            program_->output(),
            batch.target,
            batch.rows,
            columns,
            T(1),
            batch.weight,
            loss_.options};
}

// Predictions and the loss that the caller makes of them. Should it throw, the pass is over.
template <class T>
typename Trainer<T>::Sum Trainer<T>::callers_loss(const LossRows<T>& rows, const Pass& pass, std::size_t first) {
    program_->forward({0, rows.rows});
    try {
        return {pass.loss(pass.loss_context, rows.dpred, rows.pred, first, rows.rows) * double(rows.rows), double(rows.rows)};
    } catch (...) {
        program_->take_back();
        program_->end();
        throw;
    }
}

// A batch, and where it is its turn the update: the sum of the batch's losses before it.
template <class T>
typename Trainer<T>::Sum Trainer<T>::train(const Batch& batch, const Pass& pass, std::int32_t* correct, std::size_t update,
                                           Turn turn) {
    const auto& parameters = program_->parameters();
    for (std::size_t i = 0; i < parameters.size(); ++i)
        if (places_[i] == kNoPlace && !parameters[i].frozen)
            throw std::invalid_argument("Trainer: " + parameters[i].name +
                                        " is neither frozen nor among the optimizer's parameters");
    if (fuse_ == FuseUpdate::always && program_->has_masks())
        throw std::invalid_argument("Trainer: fuse_update is True, expected None or False with a model that is pruned");
    LossRows<T> rows = begin(batch, correct, true);
    rows.dpred = program_->output_gradient();
    Sum sum{};
    if (loss_.loss) {
        sum.count = mean_count(*loss_.loss, rows);
        rows.scale = mean_scale<T>(sum.count);
    } else {
        sum = callers_loss(rows, pass, batch.first);
        rows.loss = nullptr;  // it is there, as are the predictions
        if (pass.guarded && !std::isfinite(sum.loss)) return program_->end(), sum;
    }
    turn_ = turn, guarded_ = pass.guarded;
    if (!turn.alone()) {  // the gradient of the sum, which the update divides
        turn_count_ = (turn.adds ? turn_count_ : 0) + sum.count;
        rows.scale = T(1);
        for (std::size_t i = 0; !rows.loss && i < rows.rows * rows.columns; ++i) rows.dpred[i] *= T(rows.rows);
    }
    const std::scoped_lock held(optimizer_->lock);
    for (std::size_t g = 0; pass.rates && g < optimizer_->groups(); ++g)
        if (const double rate = pass.rates[update * optimizer_->groups() + g]; rate == rate) optimizer_->options(g).lr = rate;
    const double ns = double(batch.rows) * program_->ns_per_row() + kUpdateNs * double(program_->parameter_bytes() / sizeof(T));
    const bool at_once = turn.alone() && rules_.clip_norm == 0;  // of one batch, and no norm of all gradients is wanted
    const bool in_parts = at_once && optimizer_->updates_in_parts();
    const std::size_t chain = in_parts ? program_->unit_chain() : 0;
    const auto by_units = [&](int threads) { return chain > 0 && program_->hidden_units() > chain * std::size_t(threads - 1); };
    const bool is_large = ns >= kLargeStep && (ns >= kLargeStepByUnits || program_->has_pieces() || !by_units(available_threads()));
    packs_ = pass.alone && rows.loss && in_parts && is_large && program_->has_pieces() && rules_.max_norm == 0 &&
             !program_->has_masks() && fuse_ != FuseUpdate::always;
    program_->use_pieces(pass.alone && program_->last_writer == this);
    program_->last_writer = packs_ ? this : nullptr;
    program_->fused = turn.alone() && !packs_ && fuses(batch.rows);
    if (!program_->fused) program_->keep_gradients();
    constexpr Dtype dtype = sizeof(T) == 4 ? Dtype::float32 : Dtype::float64;
    for (std::size_t i = 0; i < parameters.size(); ++i) {
        const Parameter<T>& p = parameters[i];
        if (places_[i] != kNoPlace)  // any gradient but null will do where none is kept
            optimizer_->place(places_[i], p.weight, p.frozen ? nullptr : program_->fused ? p.weight : p.gradient, dtype);
    }
    if (at_once) optimizer_->prepare(guarded_);
    const double penalty = this->penalty() * sum.count;  // of the weights before the update, as the loss
    const auto run = [&](Team team) {
        if (team.part == 0 && at_once) optimizer_->begin_prepared_step();  // here, while the work comes to the other threads
        if (team.parts > 1 && by_units(team.parts))
            train_by_units(rows, team);
        else
            train_by_rows(rows, team, in_parts);
        if (team.part == 0 && rows.loss) sum.loss = sum_in_order(rows.loss, rows.rows);  // while they come to their ends
    };
    if (is_large || (ns < kSmallStep && !shares_always()) || !rows.loss)
        run(Team{0, 1});
    else if (shares_always())
        run_team(available_threads(), run);
    else
        team_trials_.run(available_threads(), ns, ns >= kTeamGuess, run);
    if (!guarded_ || std::isfinite(sum.loss)) {
        if (!turn.alone() && turn.updates) update_from_sums();
        if (at_once && !in_parts) optimizer_->update_all();
        if (!at_once && turn.updates) optimizer_->step({1, rules_.clip_norm});
        if (turn.updates) settle(), average_update();
    } else if (at_once) {
        optimizer_->take_back_step();
    }
    program_->end();
    sum.loss += penalty;
    return sum;
}

// Makes the gradients of sums over several batches those of the mean, and what is asked of weights besides a part of them.
template <class T>
void Trainer<T>::update_from_sums() {
    const T scale = mean_scale<T>(turn_count_);
    for (const Parameter<T>& p : program_->parameters()) {
        if (p.frozen) continue;
        T* const g = p.gradient;
        parallel_for(p.size, kAlignment / sizeof(T), 0.1, [=](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) g[i] *= scale;
        });
        const std::size_t columns = p.row();
        regularize(p, {g, columns}, {0, p.size / columns}, {0, columns});
    }
}

// Whether what follows from these losses may reach the parameters.
template <class T>
bool Trainer<T>::may_learn(const LossRows<T>& rows) const {
    if (!guarded_ || !rows.loss) return true;
    int others = 0;
    for (std::size_t i = 0; i < rows.rows; ++i) others |= !(std::abs(rows.loss[i]) <= std::numeric_limits<T>::max());
    return others == 0;
}

// A thread takes its rows through forward, loss and backward (of a caller's loss: backward alone) on its own; when all have done
// so, each computes the gradients of its share of every parameter, and updates that share at once: one parallel region with one
// barrier. A large step runs so on a team of one, and every product is shared in two dimensions instead, which packs less.
template <class T>
void Trainer<T>::train_by_rows(LossRows<T> rows, Team team, bool update) {
    const Range mine = share_of(rows.rows, 1, team);
    if (rows.loss) {
        program_->forward(mine, team);
        if (mine.begin < mine.end) loss_rows(*loss_.loss, rows.part(mine.begin, mine.end));
    }
    program_->backward_inputs(nullptr, mine, team);
    team.barrier();
    if (!may_learn(rows)) return;
    const bool fused = program_->fused, in_turn = team.parts > 1 || fused;  // each part of a parameter after its gradient
    for (std::size_t layer = program_->layers(); layer-- > 0;) {
        const auto learn_in = [&](const ParameterShare& share) {
            learn(layer, program_->factors(layer), share, in_turn && update);
        };
        if (team.parts > 1 || !fused) {
            learn_in(program_->share_of_parameters(layer, team));
            continue;
        }
        const double ns = double(rows.rows) * program_->ns_per_row(layer) / 3;
        Handout handout;
        run_team(threads_for(ns), [&](Team t) {
            const auto share_of_part = [&](int part) { return program_->share_of_parameters(layer, {part, t.parts}); };
            const auto count = [&](int part) {  // at least the one piece that takes the vectors' elements
                const Range r = share_of_part(part).rows;
                return std::max<std::size_t>(r.end - r.begin, 1);
            };
            // Products of pieces pack too much for each tile to begin more of them.
            const std::size_t all = program_->share_of_parameters(layer, {0, 1}).rows.end,
                              least = program_->precision_of(layer) == MatmulPrecision::float32
                                          ? Handout::least_piece(ns / double(all))
                                          : all;
            handout.run(t, kTileRows / 4, least, count, [&](int part, std::size_t begin, std::size_t end) {
                ParameterShare piece = share_of_part(part);
                const Range r = piece.rows;
                piece.rows = {std::min(r.begin + begin, r.end), std::min(r.begin + end, r.end)};
                if (begin > 0) piece.elements = {0, 0};
                learn_in(piece);
            });
        });
    }
    if (!in_turn && update) packs_ ? update_and_pack() : optimizer_->update_all();
}

// Updates all parameters; a weight whose pieces are kept some rows at a time, which are packed while they are in cache.
template <class T>
void Trainer<T>::update_and_pack() {
    for (std::size_t layer = 0; layer < program_->layers(); ++layer)
        for (std::size_t i = program_->first_parameter(layer); i < program_->first_parameter(layer + 1); ++i) {
            const Parameter<T>& p = program_->parameters()[i];
            if (p.frozen) continue;
            const std::size_t columns = p.row(), rows = p.size / columns;
            WeightPieces* const pieces = i == program_->first_parameter(layer) ? program_->pieces(layer) : nullptr;
            const std::size_t grain = pieces ? WeightPieces::grain() : 1;
            if (pieces) {
                pieces->reserve(rows, columns, program_->precision_of(layer), program_->needs_dx(layer));
                pieces->forget();
            }
            std::atomic<bool> finite{true};
            parallel_for(rows, grain, kUpdateNs * double(columns), [&](std::size_t begin, std::size_t end) {
                for (std::size_t r = begin; r < end; r += pieces ? grain : end - begin) {
                    const Range some{r, pieces ? std::min(r + grain, end) : end};
                    optimizer_->update(places_[i], columns, some, {0, columns}, p.gradient + r * columns, columns);
                    if constexpr (sizeof(T) == 4)
                        if (pieces && !pieces->pack(p.weight, some)) finite = false;
                }
            });
            if (pieces && finite) pieces->are_whole();
        }
}

// A thread takes its units of the hidden layer through both directions and updates what belongs to them. Of the other threads it
// needs their parts of the sums over units that are the output, no more; output and loss, of few columns, every thread calculates
// for all rows, which takes less time than handing them over.
template <class T>
void Trainer<T>::train_by_units(LossRows<T> rows, Team team) {
    const Range units = share_of(program_->hidden_units(), program_->unit_chain(), team);
    program_->forward_units(units);
    team.barrier();
    T* output = program_->output_place();
    if (team.part > 0) {  // what counts is part 0's
        const std::size_t size = padded<T>(rows.rows * rows.columns);
        output = static_cast<T*>(thread_scratch(Scratch::output, (2 * size + rows.rows) * sizeof(T)));
        rows.pred = output, rows.dpred = output + size, rows.loss = output + 2 * size, rows.correct = nullptr;
    }
    program_->output_from_chains(output);
    loss_rows(*loss_.loss, rows);
    if (!may_learn(rows)) return;
    program_->backward_output(rows.dpred, output, rows.rows);
    if (program_->first_trained() == 0) program_->backward_units(rows.dpred, units);
    const std::size_t line = 64 / sizeof(T);
    const ParameterShare above{units, {0, rows.columns}, share_of(rows.columns, line, team)},
        own{{0, program_->in()}, units, units};
    learn(1, program_->unit_factors(1, rows.dpred, units), above, true);
    learn(0, program_->unit_factors(0, rows.dpred, units), own, true);
}

// The gradients of a share of a layer's parameters, and with `update` at once what they do to that share.
template <class T>
void Trainer<T>::learn(std::size_t layer, const Factors& factors, const ParameterShare& share, bool update) {
    program_->backward_columns(layer, factors, share.elements);
    for (std::size_t i = program_->first_parameter(layer); i < program_->first_parameter(layer + 1); ++i) {
        const Parameter<T>& p = program_->parameters()[i];
        if (p.frozen) continue;
        const Range rows = share.rows_of(p.shape), columns = share.columns_of(p.shape);
        if (rows.begin == rows.end || columns.begin == columns.end) continue;
        if (program_->fused) {
            learn_in_tiles(layer, i, factors, rows, columns);
        } else {
            const Rows<T> g = program_->gradient_at(i, rows, columns);
            program_->backward_parameter(layer, i, g, factors, turn_.adds, rows, columns);
            if (turn_.alone()) regularize(p, g, rows, columns);
            if (update) optimizer_->update(places_[i], p.row(), rows, columns, g.at, g.stride);
        }
    }
}

// The same without a place for the gradient: a tile of it is put through the optimizer while it is in L2.
template <class T>
void Trainer<T>::learn_in_tiles(std::size_t layer, std::size_t parameter, const Factors& factors, Range rows, Range columns) {
    constexpr std::size_t most_columns = kTileRowBytes / sizeof(T);
    const std::size_t width = std::min(columns.end - columns.begin, most_columns);
    T* const tile = static_cast<T*>(thread_scratch(Scratch::gradient, kTileRows * kTileRowBytes));
    for (std::size_t c = columns.begin; c < columns.end; c += width)
        for (std::size_t r = rows.begin; r < rows.end; r += kTileRows) {
            const Range own_rows{r, std::min(r + kTileRows, rows.end)}, own_columns{c, std::min(c + width, columns.end)};
            const Parameter<T>& p = program_->parameters()[parameter];
            program_->backward_parameter(layer, parameter, Rows<T>{tile, width}, factors, false, own_rows, own_columns);
            regularize(p, {tile, width}, own_rows, own_columns);
            optimizer_->update(places_[parameter], p.row(), own_rows, own_columns, tile, width);
        }
}

template <class T>
bool Trainer<T>::fuses(std::size_t batch) const {
    if (rules_.clip_norm != 0 || rules_.max_norm != 0 || program_->has_masks()) return false;
    if (fuse_ != FuseUpdate::where_it_pays) return fuse_ == FuseUpdate::always;
    if (batch < kLeastFusedBatch || batch > kMostFusedBatch || program_->keeps_gradients() || !optimizer_->updates_in_parts())
        return false;
    return program_->parameter_bytes() >= (program_->unit_chain() > 0 ? kFusedBytesByUnits : kFusedBytes);
}

template <class T>
bool Trainer<T>::is_penalized(const Parameter<T>& p) const {
    return rules_.has_penalty() && !p.frozen && (rules_.penalize_bias || p.shape.size() == 2);
}

template <class T>
double Trainer<T>::penalty() {
    double total = 0;
    for (const Parameter<T>& p : program_->parameters())
        if (is_penalized(p)) total += trainstep::penalty(p.weight, p.size, rules_.l1, rules_.l2, penalty_sums_);
    return total;
}

// What is asked of a parameter, on a part of its gradient with the first element at g.at: the penalty's slope; nothing where it is
// masked.
template <class T>
void Trainer<T>::regularize(const Parameter<T>& p, Rows<T> g, Range rows, Range columns) const {
    const std::size_t at = rows.begin * p.row() + columns.begin, m = rows.end - rows.begin, n = columns.end - columns.begin;
    if (is_penalized(p)) add_penalty_slope(g, {p.weight + at, p.row()}, m, n, rules_.l1, rules_.l2);
    if (p.mask) keep(g, {p.mask + at, p.row()}, m, n);
}

// What weights have to be after an update.
template <class T>
void Trainer<T>::settle() {
    if (rules_.max_norm == 0 && !program_->has_masks()) return;
    for (const Parameter<T>& p : program_->parameters()) {
        if (p.frozen) continue;
        if (p.mask) keep<T>({p.weight, p.size}, {p.mask, p.size}, 1, p.size);
        if (rules_.max_norm != 0 && p.shape.size() == 2) limit_units(p.weight, p.shape[0], p.row(), rules_.max_norm);
    }
}

template <class T>
void Trainer<T>::keep_average(const Averaging& averaging) {
    averaging_ = averaging;
    program_->save(average_weights_, average_buffers_);
}

template <class T>
void Trainer<T>::average() {
    const std::scoped_lock held(program_->lock);
    program_->approach(average_weights_, average_buffers_, 1 / double(++averages));
}

template <class T>
void Trainer<T>::average_update() {
    if (!averaging_ || !averaging_->decay) return;
    const double t = double(averages++), decay = *averaging_->decay;
    const double kept = averaging_->warmup ? std::min(decay, (1 + t) / (10 + t)) : decay;
    program_->approach(average_weights_, average_buffers_, t == 0 ? 1 : 1 - kept);
}

// The sum of the batch's losses, with nothing changed.
template <class T>
typename Trainer<T>::Sum Trainer<T>::measure(const Batch& batch, const Pass& pass, std::int32_t* correct) {
    const LossRows<T> rows = begin(batch, correct, false);
    Sum sum{};
    if (loss_.loss) {
        program_->forward({0, batch.rows});
        loss_rows(*loss_.loss, rows);
        sum = {sum_in_order(rows.loss, rows.rows), mean_count(*loss_.loss, rows)};
    } else {
        sum = callers_loss(rows, pass, batch.first);
    }
    program_->end();
    sum.loss += penalty() * sum.count;
    return sum;
}

template <class T>
double Trainer<T>::step(const Data<T>& batch, Pass pass) {
    pass.batch_size = batch.x.rows;
    const std::scoped_lock held(program_->lock);
    const Sum sum = train(gather(batch, pass, 0, batch.x.rows), pass, nullptr);
    return mean_of(sum.loss, sum.count);
}

// The rows first .. first + rows of the pass, in place where they lie so, else copied into the workspace.
template <class T>
typename Trainer<T>::Batch Trainer<T>::gather(const Data<T>& data, const Pass& pass, std::size_t first, std::size_t rows) {
    Batch batch{nullptr, {}, data.weight ? data.weight + first : nullptr, first, rows};
    if (!pass.order && data.x.dtype == dtype_of<T>) {
        batch.x = static_cast<const T*>(data.x.data) + first * data.x.columns;
    } else {
        T* buffer = program_->input_buffer(rows);
        gather_rows(buffer, data.x, pass.order, first, rows);
        batch.x = buffer;
    }
    const std::size_t columns = program_->out();
    if (data.y.labels) {
        batch.target.labels = data.y.labels + first;
        if (pass.order) {
            if (label_buffer_.size() < rows) label_buffer_.resize(rows);
            for (std::size_t i = 0; i < rows; ++i) label_buffer_[i] = data.y.labels[pass.order[first + i]];
            batch.target.labels = label_buffer_.data();
        }
    } else if (data.y.values) {
        batch.target.values = data.y.values + first * columns;
        if (pass.order) {
            if (target_buffer_.size() < rows * columns) target_buffer_.resize(rows * columns);
            gather_rows(target_buffer_.data(), Table{data.y.values, dtype_of<T>, data.x.rows, columns}, pass.order, first, rows);
            batch.target.values = target_buffer_.data();
        }
    }
    if (data.weight && pass.order) {
        if (weight_buffer_.size() < rows) weight_buffer_.resize(rows);
        for (std::size_t i = 0; i < rows; ++i) weight_buffer_[i] = data.weight[pass.order[first + i]];
        batch.weight = weight_buffer_.data();
    }
    return batch;
}

// What the pass over a batch that was the last has predicted, added to the sums of metrics.
template <class T>
void Trainer<T>::add_to(MetricSums<T>& metrics, const Batch& batch) const {
    if (metrics.count() > 0) metrics.add(program_->output(), batch.target, batch.weight, batch.rows);
}

// A batch of the pass, and what it adds to the totals.
template <class T>
template <class RunBatch>
typename Trainer<T>::Sum Trainer<T>::run_batch(Totals& totals, const Data<T>& data, const Pass& pass, std::size_t first,
                                               std::size_t rows, RunBatch run) {
    const std::scoped_lock held(program_->lock);
    std::int32_t* correct = nullptr;
    if (loss_.loss && facts(*loss_.loss).has_accuracy()) {
        if (row_correct_.size() < rows) row_correct_.resize(rows);
        correct = row_correct_.data();
    }
    const Sum sum = run(gather(data, pass, first, rows), correct);
    totals.loss += sum.loss, totals.count += sum.count;
    for (std::size_t i = 0; correct && i < rows; ++i) totals.correct += correct[i];
    if (correct) totals.judged += std::int64_t(facts(*loss_.loss).over == LossOver::classes ? rows : rows * program_->out());
    totals.rows += std::int64_t(rows);
    ++totals.batches;
    return sum;
}

template <class T>
void Trainer<T>::fit_part(const Data<T>& data, const Pass& pass, std::size_t first, std::size_t rows, bool updates) {
    const Turn turn{unfinished.waiting > 0, updates};
    const Totals before = unfinished;
    if (!turn.adds) {
        at_update_ = unfinished;
        if (!updates) metrics_at_update_ = unfinished_metrics.sums;
        unfinished.step_loss = unfinished.step_count = 0;
    }
    diverged_.clear();
    const Sum sum = run_batch(unfinished, data, pass, first, rows, [&](const Batch& batch, std::int32_t* correct) {
        const Sum of_batch = train(batch, pass, correct, std::size_t(unfinished.updates - pass_updates_), turn);
        if (pass.guarded && !std::isfinite(of_batch.loss))
            diverged_ = program_->first_not_finite(batch.x, batch.rows);
        else
            add_to(unfinished_metrics, batch);
        return of_batch;
    });
    if (!diverged_.empty()) {
        unfinished = before;
        return;
    }
    unfinished.step_loss += sum.loss, unfinished.step_count += sum.count;
    unfinished.waiting = updates ? 0 : unfinished.waiting + 1;
    unfinished.updates += updates;
}

template <class T>
void Trainer<T>::begin_fit() {
    if (unfinished.waiting > 0) unfinished = at_update_, unfinished_metrics.sums = metrics_at_update_;
}

template <class T>
void Trainer<T>::fit_epoch(const Data<T>& data, const Pass& pass) {
    {
        const std::scoped_lock held(program_->lock);
        program_->last_writer = nullptr;
    }
    pass_updates_ = unfinished.updates;
    const std::size_t end = pass.drop_last ? data.x.rows / pass.batch_size * pass.batch_size : data.x.rows;
    for (std::size_t first = std::size_t(unfinished.rows); first < end; first += pass.batch_size) {
        const std::size_t rows = std::min(pass.batch_size, end - first);
        const bool updates = std::size_t(unfinished.waiting) + 1 == pass.accumulate || first + rows == end;
        fit_part(data, pass, first, rows, updates);
        if (!diverged_.empty() || (updates && pass.air && !pass.air(pass.air_context, unfinished))) break;
    }
}

template <class T>
void Trainer<T>::fit_batch(const Data<T>& batch, Pass pass, bool updates) {
    pass.batch_size = batch.x.rows;
    fit_part(batch, pass, 0, batch.x.rows, updates);
}

template <class T>
Totals Trainer<T>::evaluate(const Data<T>& data, const Pass& pass, MetricSums<T>& metrics) {
    Totals totals;
    for (std::size_t first = 0; first < data.x.rows; first += pass.batch_size) {
        run_batch(totals, data, pass, first, std::min(pass.batch_size, data.x.rows - first),
                  [&](const Batch& batch, std::int32_t* correct) {
                      const Sum sum = measure(batch, pass, correct);
                      add_to(metrics, batch);
                      return sum;
                  });
        if (pass.air && !pass.air(pass.air_context, totals)) break;
    }
    return totals;
}

template <class T>
void Trainer<T>::remember() {
    const std::scoped_lock held(program_->lock);
    const std::scoped_lock held_too(optimizer_->lock);
    program_->save(kept_weights_, kept_buffers_);
    optimizer_->keep(kept_states_);
    kept_passes_ = program_->passes();
    kept_unfinished_ = unfinished;
    kept_metrics_ = unfinished_metrics.sums;
    if (averaging_) {
        copy_arena(kept_average_weights_, average_weights_), copy_arena(kept_average_buffers_, average_buffers_);
        kept_averages_ = averages;
    }
}

template <class T>
void Trainer<T>::forget() {
    kept_weights_ = Arena(), kept_buffers_ = Arena();
    kept_average_weights_ = Arena(), kept_average_buffers_ = Arena();
    kept_states_ = {};
}

template <class T>
void Trainer<T>::restore() {
    const std::scoped_lock held(program_->lock);
    const std::scoped_lock held_too(optimizer_->lock);
    program_->load(kept_weights_, kept_buffers_);
    optimizer_->restore(kept_states_);
    program_->set_passes(kept_passes_);
    unfinished = kept_unfinished_;
    unfinished_metrics.sums = kept_metrics_;
    if (averaging_) {
        copy_arena(average_weights_, kept_average_weights_), copy_arena(average_buffers_, kept_average_buffers_);
        averages = kept_averages_;
    }
}

template class Trainer<float>;
template class Trainer<double>;

}  // namespace trainstep
