// An echo server in the shape of the example in the documentation of Python's selectors: what a key carries
// is the function to call when its descriptor is ready. The loop runs in a fiber; beside it one fiber says
// now and then what was served, and one waits for SIGINT or SIGTERM and ends it all.
//
//   selector_echo PORT      on 127.0.0.1; port 0 takes a free one, and the first line says which

#include <annulet/hub/hub.hpp>
#include <annulet/hub/signal_set.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <functional>
#include <iostream>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_map>

using annulet::io_event;
using namespace std::chrono_literals;

namespace {

// Whatever has a fileno() can be registered. It must stay where it is as long as it is.
class tcp_socket {
 public:
  explicit tcp_socket(int fd) : fd_(fd) {}
  ~tcp_socket() { ::close(fd_); }
  tcp_socket(const tcp_socket&) = delete;
  tcp_socket& operator=(const tcp_socket&) = delete;
  int fileno() const { return fd_; }

 private:
  int fd_;
};

struct connection : tcp_socket {
  using tcp_socket::tcp_socket;
  std::string unsent;  // what the socket did not take yet; until it has, nothing more is read
  io_event waits_for = io_event::read;
};

struct statistics {
  std::uint64_t connections = 0, bytes = 0;
  bool operator==(const statistics&) const = default;
};

std::ostream& operator<<(std::ostream& out, const statistics& s) {
  return out << s.connections << " connections, " << s.bytes << " bytes";
}

class echo_server {
 public:
  explicit echo_server(std::uint16_t port)
      : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) {
    const int fd = listener_.fileno(), on = 1;
    sockaddr_in address{AF_INET, htons(port), {htonl(INADDR_LOOPBACK)}, {}};
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    socklen_t size = sizeof address;
    if (fd < 0 || ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        ::bind(fd, generic, size) != 0 || ::listen(fd, SOMAXCONN) != 0 ||
        ::getsockname(fd, generic, &size) != 0) {
      throw std::system_error(errno, std::generic_category(),
                              "cannot listen on 127.0.0.1:" + std::to_string(port));
    }
    port_ = ntohs(address.sin_port);
    watch_listener();
  }

  std::uint16_t port() const { return port_; }
  const statistics& served() const { return served_; }

  void run() {
    for (;;) {
      for (auto& [key, events] : selector_.select(look_again_)) {
        key->data();
      }
      if (look_again_.reached()) {
        watch_listener();
      }
    }
  }

 private:
  void watch_listener() {
    selector_.register_(listener_, io_event::read, [this] { accept(); });
    look_again_ = annulet::deadline::never();
  }

  void accept() {
    const int fd = ::accept4(listener_.fileno(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      connection& c = connections_.try_emplace(fd, fd).first->second;
      selector_.register_(c, io_event::read, [this, &c] { read(c); });
      ++served_.connections;
    } else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
      // Out of descriptors, most likely. Who waits to be accepted keeps the listener readable, so it is left
      // alone until a connection ends, or for a moment.
      selector_.unregister(listener_);
      look_again_ = 100ms;
    }
  }

  void read(connection& c) {
    std::array<char, 64 * 1024> data;
    const auto got = ::recv(c.fileno(), data.data(), data.size(), 0);
    if (got > 0) {
      c.unsent.assign(data.data(), static_cast<std::size_t>(got));
      write(c);
    } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
      close(c);  // the peer is done, or has reset the connection
    }
  }

  void write(connection& c) {
    const auto sent = ::send(c.fileno(), c.unsent.data(), c.unsent.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
      close(c);
      return;
    }
    const auto taken = static_cast<std::size_t>(std::max<ssize_t>(sent, 0));
    c.unsent.erase(0, taken);
    served_.bytes += taken;
    if (c.unsent.empty() && c.waits_for == io_event::write) {
      selector_.modify(c, c.waits_for = io_event::read, [this, &c] { read(c); });
    } else if (!c.unsent.empty() && c.waits_for == io_event::read) {
      selector_.modify(c, c.waits_for = io_event::write, [this, &c] { write(c); });
    }
  }

  void close(connection& c) {
    selector_.unregister(c);
    connections_.erase(c.fileno());
    if (!look_again_.is_never()) {
      look_again_ = annulet::deadline::past();  // here is a descriptor for the next one
    }
  }

  tcp_socket listener_;
  std::uint16_t port_ = 0;
  std::unordered_map<int, connection> connections_;
  annulet::deadline look_again_ = annulet::deadline::never();  // at the listener
  statistics served_;
  annulet::basic_selector<std::function<void()>> selector_;  // ends first: it watches all of these
};

int serve(std::uint16_t port) {
  annulet::hub hub;
  annulet::signal_set stop{SIGINT, SIGTERM};
  echo_server server(port);
  std::cout << "listening on 127.0.0.1:" << server.port() << std::endl;

  bool stopped = false;
  auto serving = annulet::spawn({.name = "server"}, [&] { server.run(); });
  auto stopping = annulet::spawn({.name = "stopping"}, [&] {
    stop.wait();
    stopped = true;
    serving.kill();
  });
  auto telling = annulet::spawn({.name = "telling"}, [&] {
    for (statistics told;; annulet::this_fiber::sleep_for(1s)) {
      if (server.served() != told) {
        std::cout << "so far " << (told = server.served()) << std::endl;
      }
    }
  });

  serving.join();
  for (auto* const helper : {&stopping, &telling}) {
    helper->kill();
    helper->join();
  }
  std::cout << "served " << server.served() << std::endl;
  if (!stopped) {
    serving.get();  // throws what ended it
  }
  return 0;
}

int refuse(std::string_view why) {
  std::cerr << "selector_echo: " << why
            << "\nusage: selector_echo PORT   (0 to 65535; 0: any that is free)\n";
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
    return serve(static_cast<std::uint16_t>(port));
  } catch (const std::exception& e) {
    std::cerr << "selector_echo: " << e.what() << '\n';
    return 1;
  }
}
