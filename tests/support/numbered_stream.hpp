// A way for bytes from one end to another in which every byte is known by its place: one that is lost,
// doubled, changed or out of order shows. One end is for the calls under test, the other is a peer that waits
// for nothing.
#pragma once

#include "files.hpp"
#include "texts.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <mutex>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <netinet/tcp.h>
#include <pty.h>
#include <termios.h>

namespace annulet::test {

enum class medium : std::uint8_t { tcp, unix_stream, unix_datagram, udp, pipe, pty, disk };
enum class use : std::uint8_t { reading, writing };  // what the end under test is for

inline bool is_socket(medium m) noexcept { return m <= medium::udp; }
inline bool is_datagrams(medium m) noexcept { return m == medium::unix_datagram || m == medium::udp; }

inline constexpr std::size_t largest_datagram = 1024;

// The byte at each place of the stream: of a pattern that does not come again.
inline void number_bytes(std::span<char> into, std::uint64_t place) noexcept {
  for (char& c : into) {
    const std::uint64_t mixed = (place / 8 + 1) * 0x9e3779b97f4a7c15U;
    c = static_cast<char>((mixed ^ mixed >> 29) >> place % 8 * 8);
    ++place;
  }
}

class numbered_stream {
 public:
  // Ours is blocking or not; the peer's end never is. A writer's buffer is small.
  numbered_stream(medium m, use u, bool blocking) : medium_(m), use_(u), blocking_(blocking) {
    open();
    require_ok(::fcntl(ours_.get(), F_SETFL, blocking ? 0 : O_NONBLOCK), "fcntl");
    flags_ = require_ok(::fcntl(ours_.get(), F_GETFL), "fcntl");
  }

  [[nodiscard]] medium what() const noexcept { return medium_; }
  [[nodiscard]] std::string name() const {
    constexpr std::array names = {"TCP", "unix", "unix datagrams", "UDP", "pipe", "pty", "regular file"};
    return std::string(blocking_ ? "blocking " : "non-blocking ") + names[static_cast<std::size_t>(medium_)];
  }
  // Whether a call on our end may have to wait.
  [[nodiscard]] bool may_wait() const noexcept {
    return medium_ != medium::disk && !(medium_ == medium::udp && use_ == use::writing);
  }
  [[nodiscard]] int peer() const noexcept { return peer_.get(); }
  // Another number for our end, whose closing closes nothing.
  [[nodiscard]] int duplicate() const {
    return require_ok(::fcntl(ours_.get(), F_DUPFD_CLOEXEC, 0), "fcntl F_DUPFD_CLOEXEC");
  }

  // What the call under test is to write, and what it then says of it.
  [[nodiscard]] std::vector<char> next(std::size_t count) const {
    std::vector<char> bytes(count);
    number_bytes(bytes, written_);
    return bytes;
  }
  void wrote(std::size_t count) noexcept { written_ += count; }
  // Whether what was read are the next bytes of the stream.
  [[nodiscard]] bool takes(std::span<const char> bytes) {
    std::vector<char> expected(bytes.size());
    number_bytes(expected, read_);
    read_ += bytes.size();
    return std::ranges::equal(bytes, expected);
  }
  // The same, and throws where they are not.
  void take(std::span<const char> bytes) {
    if (const std::uint64_t place = read_; !takes(bytes)) {
      throw std::runtime_error(name() + ": other bytes than were written, from " + std::to_string(place));
    }
  }

  // One step of the peer: it writes so many bytes, or as many as go, or reads some. Returns how many. On any
  // thread, and by several.
  std::size_t peer_acts(std::size_t count) {
    const std::lock_guard<std::mutex> one_by_one(peers_);
    return use_ == use::reading ? peer_writes(count) : peer_reads(count);
  }
  // Nothing that a peer read on another thread was wrong. Throws.
  void require_no_complaint() const {
    if (wrong_) {
      throw std::runtime_error(name() + ": the peer read other bytes than were written");
    }
  }

  [[nodiscard]] std::size_t in_flight() const noexcept { return written_ - read_; }

  // Before a round: our end has nothing to read, or no room to write.
  void prepare() {
    if (use_ == use::reading) {
      settle();
      return;
    }
    if (medium_ == medium::disk && written_ == read_ && written_ - start_of_file_ > 1U << 20U) {
      empty_file();
    }
    if (may_wait()) {
      fill();
    }
  }
  // All that was written is read. Throws where it does not come, or more comes.
  void settle() {
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    const int from = use_ == use::reading ? ours_.get() : peer_.get();
    set_blocking(false);
    while (read_now(from) || read_ != written_) {
      if (std::chrono::steady_clock::now() > give_up) {
        throw std::runtime_error(name() + ": bytes were lost: " + std::to_string(written_ - read_));
      }
      pollfd more{from, POLLIN, 0};  // a pty is slow
      ::poll(&more, 1, read_ == written_ ? 0 : 1);
    }
    if (medium_ == medium::disk && written_ - start_of_file_ > 1U << 20U) {
      empty_file();
    }
    set_blocking(blocking_);
  }
  // The calls have not changed our end's flags.
  [[nodiscard]] bool flags_are_as_before() const { return ::fcntl(ours_.get(), F_GETFL) == flags_; }

 private:
  static constexpr int small_buffer = 4096;  // the kernel doubles it

  void open() {
    switch (medium_) {
      case medium::tcp:
        take_ends(make_tcp_pair());
        for (const int end : {ours_.get(), peer_.get()}) {
          const int yes = 1;
          reset_on_close(end);
          require_ok(::setsockopt(end, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes)), "TCP_NODELAY");
        }
        break;
      case medium::unix_stream:
        take_ends(make_socket_pair());
        break;
      case medium::unix_datagram:
        take_ends(make_socket_pair(SOCK_DGRAM));
        break;
      case medium::udp:
        take_ends(make_udp_pair());
        break;
      case medium::pipe:
        open_pipe();
        break;
      case medium::pty:
        open_pty();
        break;
      case medium::disk:
        open_file();
        break;
    }
    if (is_socket(medium_)) {
      require_ok(::setsockopt(ours_.get(), SOL_SOCKET, SO_SNDBUF, &small_buffer, sizeof(small_buffer)),
                 "SO_SNDBUF");
    }
  }
  void take_ends(socket_pair pair) {
    ours_ = std::move(pair.first);
    peer_ = std::move(pair.second);
  }
  void open_pipe() {
    auto [reader, writer] = make_pipe();
    require_ok(::fcntl(writer.get(), F_SETPIPE_SZ, 2 * small_buffer), "F_SETPIPE_SZ");
    ours_ = std::move(use_ == use::reading ? reader : writer);
    peer_ = std::move(use_ == use::reading ? writer : reader);
  }
  void open_pty() {
    termios raw{};
    ::cfmakeraw(&raw);
    raw.c_cc[VMIN] = 1;
    int ends[2];
    require_ok(::openpty(&ends[0], &ends[1], nullptr, &raw, nullptr), "openpty");
    peer_ = descriptor(ends[0]);
    ours_ = descriptor(ends[1]);
    require_ok(::fcntl(peer_.get(), F_SETFL, O_NONBLOCK), "fcntl");
    for (const int end : ends) {
      require_ok(::fcntl(end, F_SETFD, FD_CLOEXEC), "fcntl");
    }
  }
  void open_file() {
    std::string path = (std::filesystem::temp_directory_path() / "annulet-stream-XXXXXX").string();
    ours_ = descriptor(require_ok(::mkostemp(path.data(), O_CLOEXEC), "mkostemp"));
    peer_ = descriptor(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    ::unlink(path.c_str());
    require_ok(peer_.get(), "open");
  }
  // The stream goes on, at the start of the file.
  void empty_file() {
    require_ok(::ftruncate(ours_.get(), 0), "ftruncate");
    for (const int end : {ours_.get(), peer_.get()}) {
      require_ok(static_cast<int>(::lseek(end, 0, SEEK_SET)), "lseek");
    }
    start_of_file_ = written_;
  }

  std::size_t peer_writes(std::size_t count) {
    if (is_datagrams(medium_)) {
      count = std::min(count, largest_datagram);
    }
    const auto bytes = next(count);
    const auto took = ::write(peer_.get(), bytes.data(), bytes.size());
    const auto moved = took < 0 ? 0 : static_cast<std::size_t>(took);
    written_ += moved;
    return moved;
  }
  // Many a file wakes its writer only when it is nearly empty, so that mostly all is read.
  std::size_t peer_reads(std::size_t count) {
    const bool all = medium_ != medium::unix_stream && medium_ != medium::pipe && medium_ != medium::disk;
    std::vector<char> bytes(all ? 65536 : count);
    std::size_t sum = 0;
    do {
      const auto got = ::read(peer_.get(), bytes.data(), bytes.size());
      if (got <= 0) {
        break;
      }
      const auto moved = static_cast<std::size_t>(got);
      sum += moved;
      if (!takes(std::span(bytes).first(moved))) {
        wrong_ = true;
      }
    } while (all);
    return sum;
  }

  // Writes through our end until it takes no more.
  void fill() {
    set_blocking(false);
    for (std::size_t size = is_datagrams(medium_) ? 512 : 4096; size > 0;) {
      const auto bytes = next(size);
      const auto took = ::write(ours_.get(), bytes.data(), bytes.size());
      if (took > 0) {
        written_ += static_cast<std::size_t>(took);
      } else {
        size /= 2;
      }
    }
    set_blocking(blocking_);
  }
  // Whether there was something.
  bool read_now(int from) {
    std::vector<char> bytes(65536);
    const auto got = ::read(from, bytes.data(), bytes.size());
    if (got > 0) {
      take(std::span(bytes).first(static_cast<std::size_t>(got)));
    }
    return got > 0;
  }
  void set_blocking(bool yes) const {
    require_ok(::fcntl(ours_.get(), F_SETFL, yes ? flags_ & ~O_NONBLOCK : flags_ | O_NONBLOCK), "fcntl");
  }

  medium medium_;
  use use_;
  bool blocking_;
  int flags_ = 0;
  descriptor ours_;
  descriptor peer_;
  std::mutex peers_;
  std::atomic<bool> wrong_ = false;
  std::uint64_t written_ = 0;
  std::uint64_t read_ = 0;
  std::uint64_t start_of_file_ = 0;
};

}  // namespace annulet::test
