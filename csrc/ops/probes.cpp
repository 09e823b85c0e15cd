#include "ops/probes.h"

#include <algorithm>
#include <atomic>
#include <chrono>

#include "runtime/arena.h"
#include "runtime/isa.h"
#include "runtime/parallel.h"

namespace trainstep {

namespace {

using Clock = std::chrono::steady_clock;
constexpr double kAnyThreads = 1e18;  // ns of work: enough for as many threads as there are

double between(Clock::time_point start, Clock::time_point end) { return std::chrono::duration<double>(end - start).count(); }

// Rates of work(part, rounds), which does `amount` a round on each thread. All samples are taken in one region, between barriers. A
// sample lasts from the first thread's start to the last one's end, for on a busy machine a thread may come late from a barrier.
template <class Work>
std::vector<double> sample_rates(int threads, double amount, double seconds, int samples, Work work) {
    std::vector<double> rates(std::size_t(samples), 0.0);
    std::vector<Clock::time_point> starts(std::size_t(threads), Clock::now()), ends = starts;
    run_team(threads, [&](Team team) {
        const auto run = [&](std::size_t rounds) {
            team.barrier();
            starts[std::size_t(team.part)] = Clock::now();
            work(team.part, rounds);
            ends[std::size_t(team.part)] = Clock::now();
            team.barrier();
        };
        // What the quickest thread needed: the same for all, and as little as can be of what interruptions took.
        const auto least = [&](std::size_t rounds) {
            run(rounds);
            double shortest = between(starts[0], ends[0]);
            for (int p = 1; p < team.parts; ++p)
                shortest = std::min(shortest, between(starts[std::size_t(p)], ends[std::size_t(p)]));
            return shortest;
        };
        std::size_t rounds = 1;
        double enough;
        while ((enough = std::min({least(rounds), least(rounds), least(rounds)})) < seconds) rounds *= 2;
        rounds = std::max<std::size_t>(1, std::size_t(double(rounds) * seconds / enough));
        for (double& rate : rates) {
            run(rounds);
            if (team.part > 0) continue;
            const auto first = std::min_element(starts.begin(), starts.begin() + team.parts);
            const auto last = std::max_element(ends.begin(), ends.begin() + team.parts);
            rate = amount * double(rounds) * team.parts / between(*first, *last);
        }
    });
    return rates;
}

}  // namespace

template <class T>
std::vector<double> fma_probe(double seconds, int samples) {
    constexpr std::size_t many = 1000;  // rounds a call, so that the call itself counts for nothing
    const Kernels<T>& k = kernels().of<T>();
    return sample_rates(threads_for(kAnyThreads), k.fma_probe_flops * many, seconds, samples,
                        [&](int, std::size_t rounds) { k.fma_probe(rounds * many); });
}

std::vector<double> stream_probe(Stream stream, std::size_t bytes, double seconds, int samples) {
    const StreamTraffic traffic = kStreamTraffic[int(stream)];
    const std::size_t threads = std::size_t(threads_for(kAnyThreads));
    const std::size_t n =
        std::max<std::size_t>(1, bytes / (threads * traffic.arrays * sizeof(float) * kStreamGrain)) * kStreamGrain;
    // The arrays begin 17 lines further apart than they are long. Where two lie at the same place in a page, a load waits for an
    // earlier store to the other one.
    const std::size_t stride = n + 17 * kAlignment / sizeof(float);
    const Arena arena(threads * traffic.arrays * stride * sizeof(float));
    const auto pass = kernels().stream_probe[int(stream)];
    const double amount = double(traffic.reads + traffic.writes) * double(n) * sizeof(float);
    return sample_rates(int(threads), amount, seconds, samples, [&](int part, std::size_t rounds) {
        float* arrays[4];
        for (std::size_t i = 0; i < traffic.arrays; ++i)
            arrays[i] = arena.as<float>() + (std::size_t(part) * traffic.arrays + i) * stride;
        for (; rounds > 0; --rounds) pass(arrays, n);
    });
}

std::vector<double> round_trip_probe(int samples) {
    constexpr int trips = 100;
    constexpr double longest = 0.2;
    struct alignas(2 * kAlignment) {  // two lines: CPUs prefetch in pairs
        std::atomic<int> ball{0};
    } line;
    std::vector<double> seconds;
    bool done = false;  // written by the first thread, between two barriers
    const auto begin = Clock::now();
    run_team(std::min(2, threads_for(kAnyThreads)), [&](Team team) {
        if (team.parts < 2) return;
        for (int at = 0; !done; at += 2 * trips) {
            team.barrier();
            const auto start = Clock::now();
            for (int i = at + team.part; i < at + 2 * trips; i += 2) {  // the second thread begins with waiting for 1
                while (line.ball.load(std::memory_order_acquire) != i) {
                }
                line.ball.store(i + 1, std::memory_order_release);
            }
            team.barrier();
            if (team.part == 0) {
                seconds.push_back(between(start, Clock::now()) / trips);
                done = int(seconds.size()) == samples || between(begin, Clock::now()) > longest;
            }
            team.barrier();
        }
    });
    return seconds;
}

template std::vector<double> fma_probe<float>(double, int);
template std::vector<double> fma_probe<double>(double, int);

}  // namespace trainstep
