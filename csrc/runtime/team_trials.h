// TeamTrials: how many threads a job that is run again and again is best given, found out by trying.
//
// A model of costs does not know how far apart two cores are (on one virtual machine a cache line went to the other core and back
// in 117 ns, and seconds later in 540, as the cores were moved about), nor what else runs on them. The time of a run knows. So a
// job of a middling size is now and then tried the other way, alone instead of on the whole team or the reverse, and goes on in the
// way that was faster. Results do not depend on it: they are the same bits for any number of threads.
#pragma once

#include <algorithm>
#include <chrono>

#include "runtime/parallel.h"

namespace trainstep {

class TeamTrials {
  public:
    // Runs body(team) alone, or on `most` threads. ns is the cost model's time for one thread: times are compared in units of it,
    // so that a smaller last batch does not mislead. `guess`: what to begin with.
    template <class F>
    void run(int most, double ns, bool guess_team, F body) {
        if (most != most_) *this = TeamTrials(most, guess_team);
        if (most <= 1) return run_team(1, body);
        const auto start = Clock::now();
        run_team(on_team() ? most : 1, body);
        const std::chrono::duration<double, std::nano> took = Clock::now() - start;
        record(took.count() / ns, took.count());
    }

    TeamTrials() = default;

  private:
    using Clock = std::chrono::steady_clock;

    TeamTrials(int most, bool team) : most_(most), team_(team) {}

    bool on_team() const { return team_ != (trial_run_ >= 0); }

    void record(double relative, double ns) {
        if (trial_run_ < 0) {
            settled_ += relative;
            if (++settled_runs_ == runs_to_trial_) trial_run_ = 0, trial_ns_ = 0;
            return;
        }
        trial_ns_ += ns;
        if (trial_run_ >= kWarmRuns) trial_[trial_run_ - kWarmRuns] = relative;
        if (++trial_run_ == kWarmRuns + kTimedRuns) decide(ns);
    }

    // The mean of all runs of one way, stalls included, against the median of a few of the other. A way that was chosen for its
    // trial and then did worse in earnest (a busy core shows so) is tried again after a pause twice as long.
    void decide(double ns) {
        std::nth_element(trial_, trial_ + kTimedRuns / 2, trial_ + kTimedRuns);
        const double here = settled_ / settled_runs_, there = trial_[kTimedRuns / 2];
        const bool change = there < kBetter * here;
        patience_ = !change ? 1 : just_changed_ ? std::min(2 * patience_, kMostPatience) : patience_;
        just_changed_ = change;
        team_ = team_ != change;
        const double pause = kPauseOverTrial * patience_ * trial_ns_;
        runs_to_trial_ = std::max(kFewestRuns, int(pause / (ns * std::min(here, there) / there)));
        trial_run_ = -1, settled_ = 0, settled_runs_ = 0;
    }

    static constexpr int kWarmRuns = 2, kTimedRuns = 7;  // of a trial: the first ones wake the team and move the data
    static constexpr int kFewestRuns = 16;               // between two trials
    static constexpr double kPauseOverTrial = 100;       // so trials take 1% of the time, and cost less
    static constexpr double kBetter = 0.97;
    static constexpr int kMostPatience = 64;

    int most_ = 0;
    bool team_ = false, just_changed_ = false;
    int patience_ = 1;
    double settled_ = 0;  // sum of the runs since the last trial
    int settled_runs_ = 0, runs_to_trial_ = kFewestRuns;
    int trial_run_ = -1;  // -1: no trial is going on
    double trial_[kTimedRuns] = {}, trial_ns_ = 0;
};

}  // namespace trainstep
