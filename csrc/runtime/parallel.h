// The one way to run work on several threads.
//
// Results never depend on the number of threads: the work is split over outputs, or over chunks whose bounds follow from the
// problem alone. The number of threads follows from the work: a second thread is used when it saves more than it costs to wake.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>

namespace trainstep {

bool has_openmp();

// The most threads that a call may use. n >= 1; set_num_threads(0) goes back to the default: TRAINSTEP_NUM_THREADS, else
// OMP_NUM_THREADS, else the CPUs in the affinity mask. A lower limit set from outside through the runtime (threadpoolctl) is kept.
int num_threads();
int set_num_threads(int n);  // returns what was set before

// Reads TRAINSTEP_NUM_THREADS and prepares for fork(). Throws std::invalid_argument on a value that is no positive integer.
void init_threads();

// The most threads that a region started here would get: num_threads(), but 1 inside another region, after fork() and beside a
// OneThread.
int available_threads();

// While one lives, what its thread calls runs on that thread alone.
class OneThread {
  public:
    OneThread();
    ~OneThread();
    OneThread(const OneThread&) = delete;
};

// How many threads pay for work that takes one thread `ns` nanoseconds, where a thread's share must be at least `share` (what a
// region costs, several times over). A team that has not run for some milliseconds sleeps, and waking it costs a hundred times more
// than using a hot one.
inline constexpr double kRegionShare = 1.25e3;
int threads_for(double ns, double share = kRegionShare);

// The same where nothing sleeps: of `most` threads, as many as get a whole share each.
inline int threads_worth(double ns, double share, int most) {
    const double shares = ns / share;
    return shares < 2 ? 1 : shares < most ? int(shares) : most;
}

// To measure what the cost model decides: while this is on, every region gets all threads, however small its work.
void share_always(bool on);
bool shares_always();

// Where the threads of a team wait for each other.
struct Meeting;

// A thread's place in a team: its share of the work is `part` of `parts`.
struct Team {
    int part, parts;
    Meeting* meeting = nullptr;

    // Every thread of the team waits here for the others.
    void barrier() const;
};

// This thread's share of n items that are cut at multiples of grain: items [begin, end).
struct Range {
    std::size_t begin, end;
};
inline Range share_of(std::size_t n, std::size_t grain, Team team) {
    const std::size_t chunks = (n + grain - 1) / grain;
    const auto cut = [=](int part) {
        const std::size_t at = chunks * std::size_t(part) / std::size_t(team.parts) * grain;
        return at < n ? at : n;
    };
    return {cut(team.part), cut(team.part + 1)};
}

// The shares of a team, handed out in pieces: each thread takes pieces of its own share, half of what is left at a time, and when
// nothing is, goes on with what the others have not begun. Who is slowed down, by other programs or by where its data lies, then
// holds up nobody for longer than a piece. Where the pieces are cut must not matter to any result. (Training steps on a machine
// with neighbours, with it and without in turns: 784-512-512-10 takes 3 to 5% less time on average, 784-2048-2048-10 2%; at best
// the same.)
class Handout {
  public:
    // How many items a piece has at least, which take one thread `ns` each: some 20 us, for each piece has costs of its own.
    static std::size_t least_piece(double ns) { return shares_always() ? 1 : std::size_t(20e3 / std::max(ns, 1e-6)) + 1; }

    // By every thread of the team: body(part, begin, end) for items [begin, end) of the share of `part`, which has count(part) of
    // them, cut at multiples of grain.
    template <class Count, class Body>
    void run(Team team, std::size_t grain, std::size_t least, Count count, Body body) {
        const bool helps = team.parts <= kMostThreads;
        for (int i = 0; i < (helps ? team.parts : 1); ++i) {
            const int part = (team.part + i) % team.parts;
            const std::size_t n = count(part);
            std::atomic<std::size_t> of_one{0}, &taken = helps ? taken_[part] : of_one;
            for (std::size_t at = taken.load(std::memory_order_relaxed); at < n; at = taken.load(std::memory_order_relaxed)) {
                const std::size_t wanted = std::max((n - at) / 2, least), end = at + (wanted + grain - 1) / grain * grain;
                if (taken.compare_exchange_strong(at, end, std::memory_order_relaxed)) body(part, at, std::min(end, n));
            }
        }
    }

  private:
    static constexpr int kMostThreads = 64;  // in a team of more, each thread does its own share and no other
    std::atomic<std::size_t> taken_[kMostThreads]{};
};

// Runs body(team) on `threads` threads, or on fewer where no more can be had. Inside, threads_for gives 1: what body calls runs on
// its own thread.
using TeamBody = void (*)(void* context, Team team);
void run_team(int threads, TeamBody body, void* context);

template <class F>
void run_team(int threads, F body) {
    if (threads <= 1) return body(Team{0, 1});
    run_team(threads, [](void* f, Team team) { (*static_cast<F*>(f))(team); }, &body);
}

// body(begin, end) over [0, n) in contiguous ranges that start on multiples of `grain`; ns_per_item is one thread's time for an
// item. body must give the same result however the range is cut at multiples of grain.
template <class F>
void parallel_for(std::size_t n, std::size_t grain, double ns_per_item, F&& body) {
    const std::size_t chunks = (n + grain - 1) / grain;
    int threads = threads_for(double(n) * ns_per_item);
    if (std::size_t(threads) > chunks) threads = int(chunks);
    run_team(threads, [&](Team team) {
        const Range range = share_of(n, grain, team);
        if (range.begin < range.end) body(range.begin, range.end);
    });
}

// A 64-byte aligned buffer of this thread, at least `bytes` long, that keeps its place until this thread asks for more. Each has
// one user at a time.
enum class Scratch { packing, gradient, output };
void* thread_scratch(Scratch use, std::size_t bytes);

}  // namespace trainstep
