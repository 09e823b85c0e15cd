// Arena: one 64-byte aligned block of zeroed memory that many arrays are laid out in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace trainstep {

// There is no memory for so many bytes.
class OutOfMemory final : public std::bad_alloc {
  public:
    explicit OutOfMemory(std::size_t bytes) {
        std::snprintf(text_, sizeof text_, "there is no memory for %.4g GiB", double(bytes) / double(1 << 30));
    }
    const char* what() const noexcept override { return text_; }

  private:
    char text_[64];
};

inline constexpr std::size_t kAlignment = 64;  // a cache line, and the widest vector
inline constexpr std::size_t kPair = 128;  // lines that a processor may fetch together, though another thread writes one of them

// n elements of T take this many, so that the next array starts on a cache line.
template <class T>
constexpr std::size_t padded(std::size_t n) {
    constexpr std::size_t line = kAlignment / sizeof(T);
    return (n + line - 1) / line * line;
}

// Elements between what two threads write: a processor fetches some lines ahead of those that it reads, and would take them from
// the other.
template <class T>
inline constexpr std::size_t kApart = 1024 / sizeof(T);

class Arena {
  public:
    Arena() = default;
    explicit Arena(std::size_t bytes) : bytes_(bytes) {
        if (bytes == 0) return;
        if (bytes > std::size_t(-1) / 2) throw OutOfMemory(bytes);
        const std::size_t rounded = (bytes + kPair - 1) / kPair * kPair;
        data_ = std::aligned_alloc(kPair, rounded);
        if (!data_) throw OutOfMemory(bytes);
#ifdef __linux__
        // As NumPy does for its large arrays: fewer TLB entries. A kernel that has no huge pages to give ignores it.
        constexpr std::size_t page = 4096, large = std::size_t{4} << 20;
        char* const first_page = static_cast<char*>(data_) + (page - reinterpret_cast<std::uintptr_t>(data_) % page) % page;
        if (rounded >= large) madvise(first_page, rounded - page, MADV_HUGEPAGE);
#endif
        std::memset(data_, 0, rounded);
    }
    Arena(Arena&& other) noexcept { swap(other); }
    Arena& operator=(Arena&& other) noexcept {
        swap(other);
        return *this;
    }
    ~Arena() { std::free(data_); }

    void* data() const { return data_; }
    std::size_t bytes() const { return bytes_; }
    template <class T>
    T* as() const {
        return static_cast<T*>(data_);
    }

  private:
    void swap(Arena& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(bytes_, other.bytes_);
    }
    void* data_ = nullptr;
    std::size_t bytes_ = 0;
};

// `to` becomes as large as `from`, and stays where it is if it is so already.
inline void copy_arena(Arena& to, const Arena& from) {
    if (to.bytes() != from.bytes()) to = Arena(from.bytes());
    if (from.bytes() > 0) std::memcpy(to.data(), from.data(), from.bytes());
}

}  // namespace trainstep
