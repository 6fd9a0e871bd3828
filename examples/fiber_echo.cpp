// An echo server in blocking style: each connection has a fiber of its own, which receives and sends as if
// there were nothing else to do. All run on one thread; whoever would wait lets the others go on. main, a
// fiber too, says now and then what was served, waits for SIGINT or SIGTERM, and ends it all.
//
//   fiber_echo PORT      on 127.0.0.1; port 0 takes a free one, and the first line says which

#include <annulet/hub/hub.hpp>
#include <annulet/hub/io.hpp>
#include <annulet/hub/signal_set.hpp>
#include <annulet/runtime/deadline.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <exception>
#include <iostream>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

using namespace std::chrono_literals;

namespace {

struct statistics {
  std::uint64_t connections = 0, bytes = 0;
  bool operator==(const statistics&) const = default;
};

std::ostream& operator<<(std::ostream& out, const statistics& s) {
  return out << s.connections << " connections, " << s.bytes << " bytes";
}

// Of descriptors or memory. It may be over when a connection has ended.
bool is_shortage(const std::error_code& error) {
  return error == std::errc::too_many_files_open || error == std::errc::too_many_files_open_in_system ||
         error == std::errc::no_buffer_space || error == std::errc::not_enough_memory;
}

// Shared by all the fibers without a lock: they take turns only where one waits.
class echo_server {
 public:
  const statistics& served() const { return served_; }

  [[noreturn]] void run(annulet::descriptor listener) {
    for (;;) {
      has_room_.clear();
      try {
        annulet::spawn({.name = "connection"}, &echo_server::echo, this, listener.accept());
        ++served_.connections;
      } catch (const std::system_error& e) {
        if (is_shortage(e.code())) {
          wait_for_room(e);
        } else if (e.code() != std::errc::connection_aborted) {  // the peer went before it was accepted
          throw;
        }
      }
    }
  }

 private:
  void echo(annulet::descriptor conn) {
    try {
      std::array<char, 64 * 1024> buffer;  // on the fiber's stack, of which only touched pages cost memory
      while (const std::size_t n = conn.recv(buffer)) {
        conn.write_all({buffer.data(), n});
        served_.bytes += n;
      }
    } catch (const std::system_error&) {
      // The peer has reset the connection. Nobody else need hear of it.
    }
    conn = {};
    has_room_.set();
  }

  // Who waits to be accepted stays in the queue until a connection ends, or for a moment: whatever is short
  // may come from elsewhere too. It is said once, and anew only when there was no shortage for 5 seconds.
  void wait_for_room(const std::system_error& shortage) {
    if (quiet_until_.reached()) {
      std::cerr << "fiber_echo: " << shortage.what() << "; who comes now waits for a connection to end"
                << std::endl;
    }
    quiet_until_ = 5s;
    has_room_.wait(100ms);
  }

  statistics served_;
  annulet::event has_room_;
  annulet::deadline quiet_until_ = annulet::deadline::past();
};

// What a system call has returned, where that is no error.
int require(int result, const std::string& what) {
  if (result < 0) {
    throw std::system_error(errno, std::generic_category(), what);
  }
  return result;
}

annulet::descriptor own(int fd) {
  try {
    return annulet::descriptor::adopt(fd);
  } catch (...) {
    ::close(fd);  // it is still ours
    throw;
  }
}

annulet::descriptor listen_on(std::uint16_t port) {
  const std::string what = "cannot listen on 127.0.0.1:" + std::to_string(port);
  const sockaddr_in address{AF_INET, htons(port), {htonl(INADDR_LOOPBACK)}, {}};
  const int on = 1;
  auto listener = own(require(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), what));
  const int fd = listener.fileno();
  require(::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), what);
  require(::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), what);  // what is accepted inherits it
  require(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), what);
  require(::listen(fd, SOMAXCONN), what);
  return listener;
}

std::uint16_t port_of(const annulet::descriptor& socket) {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  require(::getsockname(socket.fileno(), reinterpret_cast<sockaddr*>(&address), &size), "getsockname");
  return ntohs(address.sin_port);
}

// Each connection is a descriptor; what a shell allows at first is often 1,024, and a program may have more.
void take_all_descriptors() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &limit);
  }
}

int serve(std::uint16_t port) {
  echo_server server;  // outlives the hub, whose end is the end of all connections
  annulet::hub hub;
  annulet::signal_set stop{SIGINT, SIGTERM};
  auto listener = listen_on(port);
  std::cout << "listening on 127.0.0.1:" << port_of(listener) << std::endl;

  auto serving = annulet::spawn({.name = "server"}, &echo_server::run, &server, std::move(listener));
  for (statistics told; !stop.wait(1s) && !serving.done();) {
    if (server.served() != told) {
      told = server.served();
      std::cout << "so far " << told << std::endl;
    }
  }
  const bool failed = serving.done();
  serving.kill();
  serving.join();
  std::cout << "served " << server.served() << std::endl;
  if (failed) {
    serving.get();  // throws what ended it
  }
  return 0;
}

int refuse(std::string_view why) {
  std::cerr << "fiber_echo: " << why << "\nusage: fiber_echo PORT   (0 to 65535; 0: any that is free)\n";
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    return refuse(argc < 2 ? "which port?" : "too many arguments");
  }
  const std::string_view text = argv[1];
  long port = 0;
  const auto [end, error] = std::from_chars(text.begin(), text.end(), port);
  if (error == std::errc::invalid_argument || end != text.end()) {
    return refuse("the port is not a number: '" + std::string(text) + "'");
  }
  if (error != std::errc() || port < 0 || port > 65535) {
    return refuse("the port is out of range: " + std::string(text));
  }
  try {
    take_all_descriptors();
    return serve(static_cast<std::uint16_t>(port));
  } catch (const std::exception& e) {
    std::cerr << "fiber_echo: " << e.what() << '\n';
    return 1;
  }
}
