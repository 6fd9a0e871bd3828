#include "asked_process.hpp"

#include <sys/socket.h>
#include <unistd.h>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "harness.hpp"

namespace bench {
namespace {

std::optional<std::string> read_line(int fd) {
  std::string line;
  for (char one = 0; ::read(fd, &one, 1) == 1;) {
    if (one == '\n') {
      return line;
    }
    line += one;
  }
  return std::nullopt;
}

void write_line(int fd, const std::string& line) {
  const std::string whole = line + "\n";
  if (::write(fd, whole.data(), whole.size()) != static_cast<ssize_t>(whole.size())) {
    fail("a line to the other process: %s", std::strerror(errno));
  }
}

}  // namespace

asked_process::ends asked_process::make_ends() {
  int made[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, made) != 0) {
    fail("socketpair: %s", std::strerror(errno));
  }
  return {made[0], made[1]};
}

asked_process::asked_process(const std::function<void()>& body)
    : sockets_(make_ends()), child_(usable_processors().own, [&] {
        dup2(sockets_.its, STDIN_FILENO);
        dup2(sockets_.its, STDOUT_FILENO);
        ::close(sockets_.its);
        ::close(sockets_.ours);
        body();
      }) {
  ::close(sockets_.its);
}

// It ends when it has read all there is.
asked_process::~asked_process() {
  child_.expect_end();
  ::close(sockets_.ours);
}

std::string asked_process::ask(const std::string& line) {
  write_line(sockets_.ours, line);
  if (auto answer = read_line(sockets_.ours)) {
    return *std::move(answer);
  }
  fail("the process that was asked ended without an answer");
}

std::optional<std::string> next_question() { return read_line(STDIN_FILENO); }
void answer(const std::string& line) { write_line(STDOUT_FILENO, line); }

std::optional<go_program> go_program::find(const std::string& name) {
  const auto path = std::filesystem::read_symlink("/proc/self/exe").parent_path() / name;
  return std::filesystem::exists(path) ? std::optional(go_program(path.string())) : std::nullopt;
}

void go_program::operator()() const {
  setenv("GOMAXPROCS", "1", 1);
  execl(path_.c_str(), path_.c_str(), nullptr);
  fail("%s: %s", path_.c_str(), std::strerror(errno));
}

}  // namespace bench
