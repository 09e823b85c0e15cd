#include "runtime/workers.h"

#ifdef _OPENMP
#include <omp.h>

#include <atomic>
#include <chrono>
#include <system_error>
#include <thread>
#include <vector>

#ifdef __linux__
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace trainstep {

namespace {

using Clock = std::chrono::steady_clock;

// How long a worker that has nothing to do keeps looking for work before it sleeps; waking it takes some 50 us.
constexpr std::chrono::milliseconds kStaysAwake{5};
constexpr int kLooks = 2000;  // some 20 us; then whoever is waited for may need this processor

void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Who falls asleep says so and then looks once more at what it waits for; who has something for it writes that and then looks
// whether anybody sleeps. Neither may look before the other can see what it wrote. Those who wake are in a hurry and those who fall
// asleep are not: so the latter have the kernel put a fence on every core that runs a thread of this process, where it can.
#if defined(__linux__) && defined(SYS_membarrier)
const bool has_membarrier = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0) == 0;
void fence_all_cores() {
    if (has_membarrier) syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0);
}
#else
constexpr bool has_membarrier = false;
void fence_all_cores() {}
#endif

// A number that one thread counts up and others wait for. It may run over: they are never far apart.
class Count {
  public:
    unsigned now() const { return value_.load(std::memory_order_relaxed); }
    bool reached(unsigned value) const { return int(value_.load(std::memory_order_acquire) - value) >= 0; }

    // Who has waited for it sees what was written before.
    void set(unsigned value) {
        if (has_membarrier) {
            value_.store(value, std::memory_order_release);
            std::atomic_signal_fence(std::memory_order_seq_cst);
        } else {
            value_.exchange(value);
        }
        if (sleepers_.load() == 0) return;
        value_.exchange(value);  // before notify_all looks who waits
        value_.notify_all();
    }

    // Looks for a while, and then sleeps.
    void await(unsigned value) {
        for (int looks = 0; looks < kLooks; ++looks) {
            if (reached(value)) return;
            pause();
        }
        sleep_until(value);
    }

    void sleep_until(unsigned value) {
        ++sleepers_;
        fence_all_cores();
        for (unsigned seen; int((seen = value_.load()) - value) < 0;) value_.wait(seen);
        --sleepers_;
    }

  private:
    std::atomic<unsigned> value_{0};
    std::atomic<int> sleepers_{0};
};

thread_local bool is_in_team = false;

struct InTeam {
    InTeam() { is_in_team = true; }
    ~InTeam() { is_in_team = false; }
};

// What a thread of a team tells the others.
struct alignas(128) Signals {
    Count arrived;  // at barriers
    Count done;     // a worker's: of what was posted to it
};

// A worker, and in one line, which goes from the caller's core to the worker's, what it is to do next.
struct alignas(128) Worker {
    Count posted;
    TeamBody body = nullptr;
    void* context = nullptr;
    Team team{};
#ifdef __linux__
    std::atomic<pid_t> tid{0};
#endif
    Signals signals;
};

}  // namespace

// The signals of part 0, 1, ...
struct Meeting {
    std::vector<Signals*> of;
};

namespace {

class Workers {
  public:
    bool try_take() { return !taken_.test_and_set(std::memory_order_acquire); }
    void give_back() { taken_.clear(std::memory_order_release); }

    // By whoever has taken them.
    void run(int threads, TeamBody body, void* context) {
        while (int(crew_.size()) + 1 < threads && hire()) {
        }
        const int parts = threads <= int(crew_.size()) + 1 ? threads : int(crew_.size()) + 1;
        if (parts > 1 && sleep(parts)) keep_off_this_core(parts);
        // Who was not in the teams before has fallen behind part 0, which is in all of them.
        for (int part = 1; part < parts; ++part)
            if (Count& arrived = meeting_.of[std::size_t(part)]->arrived; arrived.now() != caller_.arrived.now())
                arrived.set(caller_.arrived.now());
        for (int part = 1; part < parts; ++part) {
            Worker& w = *crew_[std::size_t(part - 1)];
            w.body = body, w.context = context, w.team = {part, parts, &meeting_};
            w.posted.set(w.posted.now() + 1);
        }
        {
            const InTeam inside;
            body(context, Team{0, parts, &meeting_});
        }
        for (int part = 1; part < parts; ++part) {
            Worker& w = *crew_[std::size_t(part - 1)];
            w.signals.done.await(w.posted.now());
        }
    }

    // By anybody, so a guess.
    bool sleep(int threads) const { return awake_.load(std::memory_order_relaxed) + 1 < threads; }

  private:
    bool hire() {
        Worker* const w = new Worker;
        crew_.push_back(w);
        meeting_.of.push_back(&w->signals);
        const int number = int(crew_.size());
        ++awake_;
#ifdef __linux__
        // Signals are for the threads that were there before.
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
#endif
        bool started = true;
        try {
            std::thread([this, w, number] { live(*w, number); }).detach();
        } catch (const std::system_error&) {
            started = false;
            --awake_;
            crew_.pop_back();
            meeting_.of.pop_back();
            delete w;
        }
#ifdef __linux__
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
#endif
        return started;
    }

    void live(Worker& w, int number) {
        is_in_team = true;
        bind(number);
#ifdef __linux__
        w.tid = pid_t(syscall(SYS_gettid));
#endif
        for (unsigned next = 1;; ++next) {
            await_work(w, next);
            w.body(w.context, w.team);
            w.signals.done.set(next);
        }
    }

    void await_work(Worker& w, unsigned next) {
        const auto start = Clock::now();
        do {
            for (int looks = 0; looks < kLooks; ++looks) {
                if (w.posted.reached(next)) return;
                pause();
            }
        } while (Clock::now() - start < kStaysAwake);
        --awake_;
        w.posted.sleep_until(next);
        ++awake_;
    }

    // Where OpenMP was told to bind threads to places (OMP_PROC_BIND, OMP_PLACES), each worker goes to a place of its own.
    static void bind([[maybe_unused]] int number) {
#ifdef __linux__
        if (omp_get_proc_bind() == omp_proc_bind_false || omp_get_num_places() < 1) return;
        const int place = number % omp_get_num_places();
        std::vector<int> cpus(std::size_t(omp_get_place_num_procs(place)));
        omp_get_place_proc_ids(place, cpus.data());
        cpu_set_t set;
        CPU_ZERO(&set);
        for (int cpu : cpus) CPU_SET(cpu, &set);
        sched_setaffinity(0, sizeof set, &set);
#endif
    }

    // A sleeping worker is woken on the core where its caller waits for it, and the kernel needs a few milliseconds to part the two
    // (an empty region after 20 to 100 ms of idling: 3.0 to 7.8 ms; with bound threads 0.1 ms). So before that the workers are told
    // to stay off the caller's core. bench/bench_threads.py then shows no such step; with other processes on both cores it comes
    // back.
    void keep_off_this_core([[maybe_unused]] int threads) {
#ifdef __linux__
        const int core = sched_getcpu();
        if (core < 0 || core >= CPU_SETSIZE || core == kept_off_ || omp_get_proc_bind() != omp_proc_bind_false) return;
        cpu_set_t places;
        if (sched_getaffinity(0, sizeof places, &places) != 0 || CPU_COUNT(&places) < 2 || threads > CPU_COUNT(&places)) return;
        CPU_CLR(core, &places);
        for (int part = 1; part < threads; ++part) {
            const pid_t tid = crew_[std::size_t(part - 1)]->tid;
            if (!tid) return;  // just begun: it is not on this core yet
            sched_setaffinity(tid, sizeof places, &places);
        }
        kept_off_ = core;
#endif
    }

    alignas(128) std::atomic_flag taken_;
    std::vector<Worker*> crew_;  // never fewer: they live as long as the process
    std::atomic<int> awake_{0};
    int kept_off_ = -1;
    Signals caller_;
    Meeting meeting_{{&caller_}};
};

std::atomic<bool> were_used{false}, lost_in_fork{false};

Workers& workers() {
    static Workers& all = *new Workers;  // not destroyed when the process ends, for they are still there
    return all;
}

}  // namespace

void run_on_workers(int threads, TeamBody body, void* context) {
    Workers& all = workers();
    if (!all.try_take()) return body(context, Team{0, 1});
#ifdef __linux__
    if (!were_used.exchange(true)) pthread_atfork(nullptr, nullptr, [] { lost_in_fork = true; });
#else
    were_used = true;
#endif
    all.run(threads, body, context);
    all.give_back();
}

bool workers_sleep(int threads) { return workers().sleep(threads); }
bool in_team() { return is_in_team; }
bool workers_lost_in_fork() { return lost_in_fork; }

void Team::barrier() const {
    if (parts == 1) return;
    Signals& own = *meeting->of[std::size_t(part)];
    const unsigned next = own.arrived.now() + 1;
    own.arrived.set(next);
    for (int other = 0; other < parts; ++other)
        if (other != part) meeting->of[std::size_t(other)]->arrived.await(next);
}

}  // namespace trainstep

#else  // without OpenMP there is one thread

namespace trainstep {

void run_on_workers(int, TeamBody body, void* context) { body(context, Team{0, 1}); }
bool workers_sleep(int) { return true; }
bool in_team() { return false; }
bool workers_lost_in_fork() { return false; }
void Team::barrier() const {}

}  // namespace trainstep

#endif
