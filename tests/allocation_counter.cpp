// A library to preload that counts heap allocations: those of every thread, between start and stop, and where the first came from.
//
// malloc and its kin stand in front of glibc's. operator new, strdup and the like come down to them, whichever library calls.
#include <execinfo.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstring>

extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
}

namespace {

constexpr int kDepth = 16;
std::atomic<bool> counting{false};
std::atomic<long> count{0};
void* first_stack[kDepth];
std::atomic<int> first_depth{0};

void note() {
    if (counting && count.fetch_add(1) == 0) first_depth = backtrace(first_stack, kDepth);
}

}  // namespace

extern "C" {

void* malloc(std::size_t size) {
    note();
    return __libc_malloc(size);
}
void* calloc(std::size_t n, std::size_t size) {
    note();
    return __libc_calloc(n, size);
}
void* realloc(void* p, std::size_t size) {
    note();
    return __libc_realloc(p, size);
}
void* memalign(std::size_t alignment, std::size_t size) {
    note();
    return __libc_memalign(alignment, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) { return memalign(alignment, size); }
int posix_memalign(void** p, std::size_t alignment, std::size_t size) {
    void* const block = memalign(alignment, size);
    if (block) *p = block;
    return block ? 0 : ENOMEM;
}

void counter_start() {
    void* warm_up[2];
    backtrace(warm_up, 2);  // the first call allocates
    first_depth = 0;
    count = 0;
    counting = true;
}
long counter_stop() {
    counting = false;
    return count;
}
// The return addresses of the first allocation that was counted; gives how many.
int counter_first_stack(void** to) {
    std::memcpy(to, first_stack, sizeof first_stack);
    return first_depth;
}
}
