// The roofline of this machine: each probe runs on as many threads as a call may use, and gives a figure per sample.
#pragma once

#include <vector>

#include "kernels/table.h"

namespace trainstep {

// Flops per second of multiply-adds in registers. A sample takes about `seconds`; some of that length go before, to warm up.
template <class T>
std::vector<double> fma_probe(double seconds, int samples);

// Bytes per second, loads and stores added up, of passes over a working set of about `bytes` that the threads share.
std::vector<double> stream_probe(Stream stream, std::size_t bytes, double seconds, int samples);

// Seconds that a cache line takes from one thread to another and back, a mean over 100 trips. None where there is one thread; fewer
// than `samples` where they take more than 0.2 s, as on one core.
std::vector<double> round_trip_probe(int samples);

}  // namespace trainstep
