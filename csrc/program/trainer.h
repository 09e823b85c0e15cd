// Trainer: forward, loss, backward and update as one call, and the loop of an epoch around it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/losses.h"
#include "ops/metrics.h"
#include "optim/optimizer.h"
#include "program/gather.h"
#include "program/program.h"
#include "runtime/team_trials.h"

namespace trainstep {

// A table of rows and what is wanted for them.
template <class T>
struct Data {
    Table x;
    Target<T> y;
    const T* weight = nullptr;  // (rows), or null: of a row in the mean
};

// The loss, with what it can be told; without one, who calls the trainer calculates it (Pass::loss).
template <class T>
struct LossSetting {
    std::optional<Loss> loss;
    std::vector<T> class_weight;
    LossOptions<T> options{};  // class_weight lies above
};

// The mean loss of rows [first, first + rows) of a pass, from its caller: who reads pred (rows, out) and, where dpred is not null,
// writes the gradient of that mean. What it throws ends the pass, with nothing changed by this batch.
using CallersLoss = double (*)(void* context, void* dpred, const void* pred, std::size_t first, std::size_t rows);

// What is asked of weights besides a small loss.
struct Regularization {
    double l1 = 0, l2 = 0;       // the loss grows by l1 * sum |w| + l2 * sum w^2 over matrices that are not frozen
    bool penalize_bias = false;  // and over vectors
    double clip_norm = 0;        // of all gradients together; 0: they are not clipped
    double max_norm = 0;         // of a column of a matrix, after the update; 0: any

    bool has_penalty() const { return l1 != 0 || l2 != 0; }
};

// A running average of parameters and buffers: with a decay after every update, else when Trainer::average is called.
struct Averaging {
    std::optional<double> decay;
    bool warmup = false;  // the decay is no more than (1 + t) / (10 + t) after t averages
};

// What a pass over a table adds up to, or has so far.
struct Totals {
    double loss = 0;  // sum over rows (or elements) of the loss, weighted: divide by count
    double count = 0;
    std::int64_t correct = 0, judged = 0;  // predictions that are right, of those that can be right or wrong
    std::int64_t rows = 0, batches = 0;
    std::int64_t updates = 0;
    double step_loss = 0, step_count = 0;  // loss and count of the last step alone, which may be of several batches
    std::int64_t waiting = 0;              // batches whose gradients wait for the update
};

// Asked after every update, or batch of a measurement; false ends the pass there.
using Air = bool (*)(void* context, const Totals& so_far);

struct Pass {
    std::size_t batch_size;
    bool drop_last = false;
    const std::int64_t* order = nullptr;  // (rows): the order of the rows, or null for the order of the table
    Air air = nullptr;
    void* air_context = nullptr;
    const double* rates = nullptr;  // (updates of this pass, groups of the optimizer): learning rates; NaN where one stays. Null:
                                    // all stay
    CallersLoss loss = nullptr;     // where the trainer has none
    void* loss_context = nullptr;
    std::size_t accumulate = 1;  // batches whose gradients make an update
    bool alone = false;          // nothing but this pass writes to parameters between two of its steps
    bool guarded = false;        // a loss that is not finite ends the pass before its update (Trainer::diverged)
};

// Whether a step puts each tile of a weight's gradient through the optimizer while it is in cache, so that gradients reach no
// memory: where it pays and nobody has asked for gradients, always or never.
enum class FuseUpdate { where_it_pays, always, never };

template <class T>
class Trainer {
  public:
    // places[i]: which array of the optimizer's parameter i is, or kNoPlace: then it must be frozen.
    static constexpr std::size_t kNoPlace = std::size_t(-1);
    Trainer(std::shared_ptr<Program<T>> program, LossSetting<T> loss, std::shared_ptr<Optimizer> optimizer,
            std::vector<std::size_t> places, FuseUpdate fuse, const Regularization& rules = {});

    // How the products of its passes are calculated; none: as the program's own are.
    std::optional<MatmulPrecision> precision;

    // One step on a batch: the mean loss before the update. Of the pass only the caller's loss counts. Throws std::invalid_argument
    // where a parameter that is not frozen has no place, before anything is written.
    double step(const Data<T>& batch, Pass pass = {});

    // An epoch over a table, from where `unfinished` says on: one update for every pass.accumulate batches and for what is left of
    // them at the end. What belongs to the epoch is the calling thread's alone: a trainer is in one fit at a time, while other
    // threads may step and evaluate, and other trainers use the same program.
    void fit_epoch(const Data<T>& data, const Pass& pass);
    // One batch of an epoch whose data comes bit by bit; updates: whether none is waited for.
    void fit_batch(const Data<T>& batch, Pass pass, bool updates);
    // Leaves out what of it waits for an update, where a fit ended so.
    void begin_fit();
    Totals unfinished;  // of the epoch that is not over: fit_epoch and fit_batch add to it, who ends it empties it
    MetricSums<T> unfinished_metrics{{}, 1, T(0)};  // likewise; without a metric nothing is added

    // Loss and accuracy over a table, with no parameter changed; to metrics what it adds to them.
    Totals evaluate(const Data<T>& data, const Pass& pass, MetricSums<T>& metrics);

    // The layer out of which came the first number that was not finite, in the batch that ended a guarded pass: its name, "loss"
    // where all layers were finite, "" where no pass ended so.
    const std::string& diverged() const { return diverged_; }

    // Remembers all that training changes; puts it back; needs no memory for it any more.
    void remember();
    void restore();
    void forget();

    // An average of all that training changes in the model, the first time a copy: kept from the next update on, or taken now, with
    // equal weights for all that were.
    void keep_average(const Averaging& averaging);
    void average();
    const Arena& average_weights() const { return average_weights_; }
    const Arena& average_buffers() const { return average_buffers_; }
    std::int64_t averages = 0;  // how many have been taken

    Program<T>& program() { return *program_; }
    std::optional<Loss> loss() const { return loss_.loss; }

  private:
    using Factors = typename Program<T>::Factors;
    struct Batch {
        const T* x;
        Target<T> target;
        const T* weight;
        std::size_t first, rows;
    };
    struct Sum {
        double loss, count;
    };
    // What a batch's gradient is to the update: it is added to that of batches before it; the update waits for those after it.
    struct Turn {
        bool adds = false, updates = true;
        bool alone() const { return !adds && updates; }
    };
    Batch gather(const Data<T>& data, const Pass& pass, std::size_t first, std::size_t rows);
    Sum train(const Batch& batch, const Pass& pass, std::int32_t* correct, std::size_t update = 0, Turn turn = {});
    bool may_learn(const LossRows<T>& rows) const;
    void average_update();
    void update_from_sums();
    void add_to(MetricSums<T>& metrics, const Batch& batch) const;
    Sum measure(const Batch& batch, const Pass& pass, std::int32_t* correct);
    LossRows<T> begin(const Batch& batch, std::int32_t* correct, bool training);
    Sum callers_loss(const LossRows<T>& rows, const Pass& pass, std::size_t first);
    void learn(std::size_t layer, const Factors& factors, const ParameterShare& share, bool update);
    void learn_in_tiles(std::size_t layer, std::size_t parameter, const Factors& factors, Range rows, Range columns);
    bool fuses(std::size_t batch) const;
    bool is_penalized(const Parameter<T>& p) const;
    double penalty();
    void regularize(const Parameter<T>& p, Rows<T> g, Range rows, Range columns) const;
    void settle();
    void update_and_pack();
    void train_by_rows(LossRows<T> rows, Team team, bool update);
    void train_by_units(LossRows<T> rows, Team team);
    void fit_part(const Data<T>& data, const Pass& pass, std::size_t first, std::size_t rows, bool updates);
    template <class RunBatch>
    Sum run_batch(Totals& totals, const Data<T>& data, const Pass& pass, std::size_t first, std::size_t rows, RunBatch run);

    std::shared_ptr<Program<T>> program_;
    LossSetting<T> loss_;
    FuseUpdate fuse_;
    std::shared_ptr<Optimizer> optimizer_;
    std::vector<std::size_t> places_;
    Regularization rules_;
    std::vector<double> penalty_sums_;
    Turn turn_;              // of the batch at hand
    double turn_count_ = 0;  // of the batches whose gradients have been added up
    bool guarded_ = false;   // Pass::guarded of it
    bool packs_ = false;     // its update leaves the pieces of weights
    std::string diverged_;
    Totals at_update_;               // `unfinished` after the last update, where batches wait for the next
    std::int64_t pass_updates_ = 0;  // unfinished.updates where the pass began, whose rates are the first
    Arena kept_weights_, kept_buffers_;
    OptimizerState kept_states_;
    std::uint32_t kept_passes_ = 0;
    Totals kept_unfinished_;
    std::vector<double> metrics_at_update_, kept_metrics_;
    std::optional<Averaging> averaging_;
    Arena average_weights_, average_buffers_, kept_average_weights_, kept_average_buffers_;
    std::int64_t kept_averages_ = 0;
    TeamTrials team_trials_;  // of steps
    // One number a row of the largest batch.
    Arena row_loss_;  // T; from a line on, so that threads write lines of their own
    std::vector<std::int32_t> row_correct_;
    std::vector<std::int64_t> label_buffer_;
    std::vector<T> target_buffer_, weight_buffer_;
};

}  // namespace trainstep
