// Trainer: forward, loss, backward and update as one call, and the loop of an epoch around it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "kernels/losses.h"
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

// What a pass over a table adds up to.
struct Totals {
    double loss = 0;  // sum over rows (or elements) of the loss, weighted: divide by count
    double count = 0;
    std::int64_t correct = 0, judged = 0;  // predictions that are right, of those that can be right or wrong
    std::int64_t rows = 0, batches = 0;
};

// Asked after every batch; false ends the pass there.
using Air = bool (*)(void* context, const Totals& so_far);

struct Pass {
    std::size_t batch_size;
    bool drop_last = false;
    const std::int64_t* order = nullptr;  // (rows): the order of the rows, or null for the order of the table
    Air air = nullptr;
    void* air_context = nullptr;
    const double* rates = nullptr;  // (batches, groups of the optimizer): learning rates; NaN where one stays. Null: all stay
    CallersLoss loss = nullptr;     // where the trainer has none
    void* loss_context = nullptr;
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

    // One step on a batch: the mean loss before the update. Of the pass only the caller's loss counts. Throws std::invalid_argument
    // where a parameter that is not frozen has no place, before anything is written.
    double step(const Data<T>& batch, Pass pass = {});

    // An epoch over a table: one step a batch.
    Totals fit_epoch(const Data<T>& data, const Pass& pass);

    // Loss and accuracy over a table, with no parameter changed.
    Totals evaluate(const Data<T>& data, const Pass& pass);

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
    Batch gather(const Data<T>& data, const Pass& pass, std::size_t first, std::size_t rows);
    Sum train(const Batch& batch, const Pass& pass, std::int32_t* correct);
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
    void train_by_rows(LossRows<T> rows, Team team, bool update);
    void train_by_units(LossRows<T> rows, Team team);
    template <class RunBatch>
    Totals for_each_batch(const Data<T>& data, const Pass& pass, RunBatch run);

    std::shared_ptr<Program<T>> program_;
    LossSetting<T> loss_;
    FuseUpdate fuse_;
    std::shared_ptr<Optimizer> optimizer_;
    std::vector<std::size_t> places_;
    Regularization rules_;
    std::vector<double> penalty_sums_;
    TeamTrials team_trials_;  // of steps
    // One number a row of the largest batch.
    Arena row_loss_;  // T; from a line on, so that threads write lines of their own
    std::vector<std::int32_t> row_correct_;
    std::vector<std::int64_t> label_buffer_;
    std::vector<T> target_buffer_, weight_buffer_;
};

}  // namespace trainstep
