// How a program is started: what its descriptors are made of, and the call itself. Internal.
#pragma once

#include "descriptor.hpp"
#include "process.hpp"

#include <array>
#include <string>
#include <vector>

namespace annulet::detail {

// The three streams, as they are here: what the child is given, and the other ends of its pipes.
class child_streams {
 public:
  // Throws std::system_error, naming the command.
  child_streams(const process_options& options, const std::string& command);

  struct end {
    child_stream::kind what;
    descriptor given;  // a file's and a pipe's: no number below 3, or one would overwrite another
    descriptor ours;
  };
  [[nodiscard]] const end& operator[](std::size_t number) const noexcept { return ends_[number]; }
  [[nodiscard]] descriptor take_ours(std::size_t number) noexcept { return std::move(ends_[number].ours); }

 private:
  std::array<end, 3> ends_;
};

// The same file under a number that no stream has.
[[nodiscard]] descriptor lifted(hub_core& hub, descriptor file, const std::string& command);

struct started {
  int error = 0;
  pid_t pid = 0;
  int pidfd = -1;  // where somebody else has taken its status already
};

// Starts it on a thread of the pool. Parks; nothing interrupts it. `directory`: its number, or -1.
[[nodiscard]] started start_process(const process_options& options, const child_streams& streams,
                                    int directory);

// Ends a child that nobody has waited for, and takes its status. The thread waits.
void discard_child(pid_t pid) noexcept;

}  // namespace annulet::detail
