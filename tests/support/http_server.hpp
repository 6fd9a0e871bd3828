// An HTTP server on this machine with some files: nginx, with a folder, a configuration and an address of its
// own, in one process, which ends with the test.
#pragma once

#include "other_user.hpp"

#include <chrono>
#include <cstdint>
#include <fstream>
#include <optional>
#include <sstream>

#include <arpa/inet.h>
#include <sys/socket.h>

namespace annulet::test {

class http_server {
 public:
  // It answers so many requests a second, evenly, and no more.
  explicit http_server(unsigned answers_a_second, cores its = cores::all) {
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      write_file("file-" + std::to_string(i), sizes[i]);
    }
    address_ = free_address();
    std::ofstream(its_ / "nginx.conf") << configuration(answers_a_second);
    nobody_.give(its_);
    run_.emplace("/usr/sbin/nginx",
                 std::vector<std::string>{"-e", "stderr", "-p", its_.path(), "-c", its_ / "nginx.conf"},
                 nobody_.become(SIGKILL, its));
    if (!becomes_true([&] { return answers(); })) {
      run_->signal(SIGKILL);
      throw std::runtime_error("nginx does not answer: " + run_->wait().err);
    }
  }

  // As 127.0.0.1:80 is one.
  [[nodiscard]] std::string address() const {
    char text[INET_ADDRSTRLEN];
    ::inet_ntop(AF_INET, &address_.sin_addr, text, sizeof text);
    return text + (":" + std::to_string(ntohs(address_.sin_port)));
  }

 private:
  static constexpr std::array<std::size_t, 16> sizes{
      0, 1, 10, 100, 1'000, 1'460, 4'095, 4'096, 4'097, 5'000, 8'192, 10'000, 100, 1'000, 16'384, 60'000};

  void write_file(const std::string& name, std::size_t size) const {
    std::string text(size, '\0');
    for (std::size_t i = 0; i < size; ++i) {
      text[i] = static_cast<char>('a' + (i * 7 + size) % 26);
    }
    std::ofstream(its_ / name) << text;
  }

  static sockaddr_in free_address() { return loopback(make_tcp_listener().port); }

  [[nodiscard]] std::string configuration(unsigned answers_a_second) const {
    std::ostringstream text;
    text << "daemon off;\nmaster_process off;\npid " << its_ / "pid"
         << ";\nerror_log stderr crit;\n"
         << "events { worker_connections 4000; }\nhttp {\n  access_log off;\n";
    for (const char* const module : {"client_body", "proxy", "fastcgi", "uwsgi", "scgi"}) {
      text << "  " << module << "_temp_path " << its_ / module << ";\n";
    }
    text << "  keepalive_requests 1000000;\n  limit_req_zone $server_port zone=all:1m rate="
         << answers_a_second << "r/s;\n  limit_req zone=all burst=100000;\n"
         << "  server {\n    listen " << address() << " backlog=4000;\n    root " << its_.path()
         << ";\n  }\n}\n";
    return text.str();
  }

  [[nodiscard]] bool answers() const {
    const descriptor socket(require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
    return ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address_), sizeof address_) == 0;
  }

  folder its_;
  other_user nobody_;
  sockaddr_in address_{};
  std::optional<program> run_;
};

}  // namespace annulet::test
