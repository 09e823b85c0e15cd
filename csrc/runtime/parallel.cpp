#include "runtime/parallel.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

#include "runtime/arena.h"

#ifdef _OPENMP
#include <omp.h>

#include <atomic>
#include <chrono>
#endif
#if defined(_OPENMP) && defined(__linux__)
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace trainstep {

namespace {

int positive_integer(const char* name, const char* text) {
    char* end = nullptr;
    const long n = std::strtol(text, &end, 10);
    if (end == text || *end != '\0' || n < 1 || n > 4096)
        throw std::invalid_argument(std::string(name) + "=" + text + ": expected an integer from 1 to 4096");
    return int(n);
}

}  // namespace

#ifdef _OPENMP

namespace {

using Clock = std::chrono::steady_clock;

std::atomic<int> wanted_threads{0};  // 0: the default
std::atomic<bool> team_was_started{false};
std::atomic<bool> team_lost_in_fork{false};  // libgomp's team does not survive fork(); entering it in the child would hang
int default_threads = 1;
thread_local int on_one_thread = 0;  // how many OneThreads live

// Costs of a parallel region, in ns. Measured on a 2-core Zen 4 with libgomp (bench/bench_threads.py): hot 0.7-2.6 us; after more
// than 5 ms of idling the workers sleep, and waking them takes 85-110 us. A share must be worth the region's cost several times
// over.
constexpr double kColdShare = 150e3;
constexpr std::chrono::milliseconds kTeamStaysHot{4};

// Whether the workers of this thread's team are awake, and whether to wake them.
class TeamHeat {
  public:
    bool is_cold(Clock::time_point now) const { return now - last_region_ > kTeamStaysHot; }
    void ran() { last_region_ = Clock::now(); }

    // A single small call is not worth waking the workers for, a stream of them is. So the time that a hot team would have saved is
    // added up, and when it has reached what waking costs, they are woken: never more than twice the time of who knew the future.
    // A pause in which they would have gone to sleep again starts the sum anew.
    bool worth_waking(Clock::time_point now, double saved) {
        if (now - last_request_ > kTeamStaysHot) missed_ = 0;
        last_request_ = now;
        missed_ += saved;
        if (missed_ < 2 * kColdShare) return false;
        missed_ = 0;
        return true;
    }

  private:
    Clock::time_point last_region_{}, last_request_{};
    double missed_ = 0;
};
thread_local TeamHeat team_heat;

#ifdef __linux__
// A sleeping worker is woken on the core where its caller spins for it, and the kernel needs a few milliseconds to part the two
// (an empty region after 20 to 100 ms of idling: 3.0 to 7.8 ms; with bound threads 0.1 ms). So before a cold region the workers are
// told to stay off the caller's core. bench/bench_threads.py then shows no such step; with other processes on both cores it comes
// back.
class WorkerPlaces {
  public:
    // Called by every worker, inside a region.
    void enter(int part) {
        if (part > 0 && part < kMost && !tid_[part]) tid_[part] = pid_t(syscall(SYS_gettid));
    }
    // Called by the caller, before a cold region.
    void keep_off_this_core(int threads) {
        const int core = sched_getcpu();
        if (core < 0 || core >= CPU_SETSIZE || core == kept_off_) return;
        cpu_set_t places;
        if (sched_getaffinity(0, sizeof places, &places) != 0 || CPU_COUNT(&places) < 2 || threads > CPU_COUNT(&places)) return;
        CPU_CLR(core, &places);
        for (int part = 1; part < threads && part < kMost; ++part)
            if (tid_[part]) sched_setaffinity(tid_[part], sizeof places, &places);
        kept_off_ = core;
    }

  private:
    static constexpr int kMost = 256;
    pid_t tid_[kMost] = {};
    int kept_off_ = -1;
};
#else
struct WorkerPlaces {
    void enter(int) {}
    void keep_off_this_core(int) {}
};
#endif
thread_local WorkerPlaces worker_places;  // one team per calling thread, as libgomp keeps them

}  // namespace

bool has_openmp() { return true; }

void init_threads() {
    default_threads = omp_get_max_threads();  // OMP_NUM_THREADS, else the affinity mask
    if (const char* text = std::getenv("TRAINSTEP_NUM_THREADS"); text && *text)
        wanted_threads = positive_integer("TRAINSTEP_NUM_THREADS", text);
#ifdef __linux__
    pthread_atfork(nullptr, nullptr, [] { team_lost_in_fork = team_was_started.load(); });
#endif
}

int set_num_threads(int n) { return wanted_threads.exchange(n); }

int num_threads() {
    const int limit = omp_get_max_threads();
    const int n = wanted_threads ? wanted_threads.load() : limit;
    return limit < default_threads && limit < n ? limit : n;
}

int available_threads() { return team_lost_in_fork || on_one_thread > 0 || omp_in_parallel() ? 1 : num_threads(); }

OneThread::OneThread() { ++on_one_thread; }
OneThread::~OneThread() { --on_one_thread; }

int threads_for(double ns, double share) {
    if (ns < 2 * share) return 1;
    const int n = available_threads();
    if (n == 1) return 1;
    if (ns < n * kColdShare) {
        const auto now = Clock::now();
        if (team_heat.is_cold(now) && !team_heat.worth_waking(now, ns * (1 - 1.0 / n))) share = kColdShare;
    }
    const double shares = ns / share;
    return shares < n ? (shares < 2 ? 1 : int(shares)) : n;
}

// A third of what OpenMP's own barrier takes where all come at about the same time.
struct Meeting {
    alignas(64) std::atomic<int> arrived{0};
    alignas(64) std::atomic<unsigned> round{0};
};

void run_team(int threads, TeamBody body, void* context) {
    team_was_started = true;
    WorkerPlaces& places = worker_places;
    if (team_heat.is_cold(Clock::now())) places.keep_off_this_core(threads);
    Meeting meeting;
#pragma omp parallel num_threads(threads)
    {
        places.enter(omp_get_thread_num());
        body(context, Team{omp_get_thread_num(), omp_get_num_threads(), &meeting});
    }
    team_heat.ran();
}

void Team::barrier() const {
    if (parts == 1) return;
    constexpr int kSpins = 2000;  // some 20 us; then whoever is waited for may need this processor
    const unsigned round = meeting->round.load(std::memory_order_relaxed);
    if (meeting->arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == parts) {
        meeting->arrived.store(0, std::memory_order_relaxed);
        meeting->round.store(round + 1, std::memory_order_release);
        meeting->round.notify_all();
        return;
    }
    for (int spins = 0; spins < kSpins; ++spins) {
        if (meeting->round.load(std::memory_order_acquire) != round) return;
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
    meeting->round.wait(round, std::memory_order_acquire);
}

#else  // without OpenMP there is one thread

bool has_openmp() { return false; }
void init_threads() {
    if (const char* text = std::getenv("TRAINSTEP_NUM_THREADS"); text && *text) positive_integer("TRAINSTEP_NUM_THREADS", text);
}
int set_num_threads(int) { return 0; }
int num_threads() { return 1; }
int available_threads() { return 1; }
OneThread::OneThread() = default;
OneThread::~OneThread() = default;
int threads_for(double, double) { return 1; }
void run_team(int, TeamBody body, void* context) { body(context, Team{0, 1}); }
void Team::barrier() const {}

#endif

void* thread_scratch(std::size_t bytes) {
    thread_local Arena buffer;
    if (buffer.bytes() < bytes) buffer = Arena(bytes);
    return buffer.data();
}

}  // namespace trainstep
