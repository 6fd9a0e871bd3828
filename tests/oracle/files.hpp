// What the oracle registers: open files of every kind that can be polled, and what changes their readiness.
//
// None of this is told to a selector. poll(2) is the judge of what a file is, so nothing here keeps a model
// of buffers; it only has to make each kind ready and not ready, often and in all the ways there are.
#pragma once

#include "dice.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include <netinet/in.h>
#include <sys/types.h>

namespace oracle {

enum class kind : std::uint8_t {
  pipe_reader,
  pipe_writer,
  tcp,
  tcp_listener,
  unix_stream,
  unix_seqpacket,
  unix_datagram,
  unix_sender,  // of datagrams to a receiver that is not connected back
  unix_receiver,
  udp,
  event,
  timer,
  signal,
  process,
  terminal_master,
  terminal_slave,
  epoll,
  regular,
  directory,
  null_device,
};
inline constexpr std::size_t kinds = 20;

const char* name_of(kind what) noexcept;

// A process that waits to be killed. Holds no descriptor of ours.
class child {
 public:
  child();
  ~child();
  child(const child&) = delete;
  child& operator=(const child&) = delete;

  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  void end() noexcept;   // returns when it has ended
  void reap() noexcept;  // the same, and nothing is left of it
 private:
  pid_t pid_;
  bool reaped_ = false;
};

// An open file, to which one or more numbers refer.
struct file {
  explicit file(kind k) noexcept : what(k) {}
  ~file();
  file(const file&) = delete;
  file& operator=(const file&) = delete;

  const kind what;
  std::weak_ptr<file> peer;        // the other end
  int inner = -1;                  // the eventfd inside an epoll descriptor
  int number = 0;                  // of a signal
  std::shared_ptr<child> process;  // null for a pidfd of our own process
  sockaddr_in address{};           // udp: of the peer; tcp_listener: its own
  std::vector<int> callers;        // tcp_listener: who called
  std::size_t sent = 0;            // terminals: since the other end was empty
};

struct descriptor {
  int fd = -1;
  std::shared_ptr<file> of;
};

// Makes files. One at a time in a process: it owns some signals meanwhile, which are blocked.
class workshop {
 public:
  workshop();
  ~workshop();
  workshop(const workshop&) = delete;
  workshop& operator=(const workshop&) = delete;

  // One descriptor, or both ends; empty where the system has no more to give.
  std::vector<descriptor> make(kind what, dice& d);
  // An O_PATH descriptor, for nobody takes it.
  [[nodiscard]] int path() const noexcept { return path_; }

 private:
  std::vector<descriptor> make_tcp(dice& d);
  std::vector<descriptor> make_process(dice& d);

  int path_;
  int listener_;
  in_port_t port_ = 0;
  std::shared_ptr<child> last_child_;
};

// Each does what it can to this kind, and nothing where there is nothing to do. None blocks.
void put(const descriptor& to, std::size_t bytes) noexcept;  // adds to what the other end can take
void fill(const descriptor& to) noexcept;                    // until no more goes in
void take(const descriptor& from, std::size_t bytes) noexcept;
void drain(const descriptor& from) noexcept;
void twist(const descriptor& which, dice& d) noexcept;  // options, errors, half closes
// Whether the file's other end must see its end at once when it is let go.
[[nodiscard]] bool end_shows(kind what) noexcept;

}  // namespace oracle
