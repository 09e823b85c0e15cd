#include "runtime/parallel.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "runtime/arena.h"
#include "runtime/workers.h"

#ifdef _OPENMP
#include <omp.h>

#include <chrono>
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
int default_threads = 1;
thread_local int on_one_thread = 0;  // how many OneThreads live

// Costs of a parallel region, in ns, on a 2-core Zen 4 (bench/bench_threads.py): 0.4 while the workers wait for it; after they
// have gone to sleep, 85-110 us. A share must be worth the region's cost several times over.
constexpr double kColdShare = 150e3;

// A single small call is not worth waking the workers for, a stream of them is. So the time that a waiting team would have saved is
// added up, and when it has reached what waking costs, they are woken: never more than twice the time of who knew the future. A
// pause in which they would have gone to sleep again starts the sum anew.
class Savings {
  public:
    bool worth_waking(Clock::time_point now, double saved) {
        if (now - last_request_ > kPause) missed_ = 0;
        last_request_ = now;
        missed_ += saved;
        if (missed_ < 2 * kColdShare) return false;
        missed_ = 0;
        return true;
    }

  private:
    static constexpr std::chrono::milliseconds kPause{4};
    Clock::time_point last_request_{};
    double missed_ = 0;
};
thread_local Savings savings;

}  // namespace

bool has_openmp() { return true; }

void init_threads() {
    default_threads = omp_get_max_threads();  // OMP_NUM_THREADS, else the affinity mask
    if (const char* text = std::getenv("TRAINSTEP_NUM_THREADS"); text && *text)
        wanted_threads = positive_integer("TRAINSTEP_NUM_THREADS", text);
}

int set_num_threads(int n) { return wanted_threads.exchange(n); }

int num_threads() {
    const int limit = omp_get_max_threads();
    const int n = wanted_threads ? wanted_threads.load() : limit;
    return limit < default_threads && limit < n ? limit : n;
}

int available_threads() {
    return on_one_thread > 0 || in_team() || workers_lost_in_fork() || omp_in_parallel() ? 1 : num_threads();
}

OneThread::OneThread() { ++on_one_thread; }
OneThread::~OneThread() { --on_one_thread; }

int threads_for(double ns, double share) {
    const bool always = shares_always();
    if (ns < 2 * share && !always) return 1;
    const int n = available_threads();
    if (n == 1 || always) return n;
    if (ns < n * kColdShare && workers_sleep(n) && !savings.worth_waking(Clock::now(), ns * (1 - 1.0 / n))) share = kColdShare;
    return threads_worth(ns, share, n);
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

#endif

namespace {
std::atomic<bool> always_shared{false};
}

void share_always(bool on) { always_shared = on; }
bool shares_always() { return always_shared.load(std::memory_order_relaxed); }

void run_team(int threads, TeamBody body, void* context) { run_on_workers(threads, body, context); }

void* thread_scratch(Scratch use, std::size_t bytes) {
    struct Place {
        void* data;
        std::size_t bytes;
    };
    thread_local constinit Place places[3] = {};  // of the buffers, without what a destructor needs at each access
    Place& place = places[int(use)];
    if (place.bytes < bytes) {
        thread_local Arena buffers[3];
        Arena& buffer = buffers[int(use)];
        place = {};
        buffer = Arena(bytes);
        place = {buffer.data(), bytes};
    }
    return place.data;
}

}  // namespace trainstep
