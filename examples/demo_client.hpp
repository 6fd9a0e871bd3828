// The other side of the demo: a process on a CPU of its own that opens many connections, sends on each a
// message as soon as the last one came back, and checks every byte.
#pragma once

#include <netinet/in.h>
#include <sys/types.h>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace demo {

// What the client has to say after each turn.
struct client_report {
  std::uint64_t connections = 0, echoes = 0, bytes = 0;
  std::array<char, 160> problem{};  // empty where every byte was right
};

// A turn goes like this: order(), and the client connects; start(), when all have been accepted, and it
// sends; after the time that was ordered it lets the last messages come back, gives its report(), and
// disconnects.
class client {
 public:
  // Forks, so it is made before the first hub. The child ends with this object, or with this process.
  client(const sockaddr_in& server, std::size_t connections, std::optional<int> cpu);
  ~client();
  client(const client&) = delete;
  client& operator=(const client&) = delete;

  void order(std::chrono::milliseconds time) const;
  void start() const;
  // Readable when the report is there, or when the child has died.
  [[nodiscard]] int fileno() const { return control_; }
  // Throws std::runtime_error for a child that died, or that has a problem to report.
  [[nodiscard]] client_report report() const;

 private:
  int control_ = -1;
  pid_t child_ = -1;
};

}  // namespace demo
